"""A lane a payment: what of its history the gateway has to be asked about, in order.

The invariant is that of `runtime.lanes`: nothing is asked before what came before it has ended, and no
payment waits for another.
"""

import asyncio
import logging

import msgspec

from payments.asking import Asker, Unreadable, Work, read
from payments.reaction import Refund
from runtime.lanes import Lanes, Place
from runtime.records import IncomingRecord

logger = logging.getLogger(__name__)


class _SetAside(msgspec.Struct, frozen=True):
    """A record that is no event of a payment."""

    source: IncomingRecord
    error: Unreadable


class PaymentLanes(Lanes[Work | _SetAside]):
    """All payments of the partitions that this process owns."""

    def __init__(self, asker: Asker) -> None:
        super().__init__(self._ask)
        self._asker = asker

    def take(self, source: IncomingRecord) -> None:
        """The next event of its partition; of one that is not owned any more, nothing."""
        place = source.topic, source.partition
        if not self.owns(place):
            return
        try:
            work = read(source)
        except Unreadable as error:
            self._put_aside(place, source, error)
            return
        except Exception as bug:  # whatever it is, the payments behind it go on
            logger.exception("%s-%d at %d cannot be read", *place, source.offset)
            self._put_aside(place, source, Unreadable(repr(bug), "internal_error"))
            return
        if work is None:
            self.pass_by(place, source.offset)
            return
        supersedes = isinstance(work.task, Refund)
        size = source.size
        self.queue(place, source.offset, source.key or b"", work, supersedes=supersedes, size=size)

    def _put_aside(self, place: Place, source: IncomingRecord, error: Unreadable) -> None:
        """It has no order with anything: a lane of its own, of a key that is no id."""
        key = b"/%d" % source.offset
        self.queue(place, source.offset, key, _SetAside(source, error), size=source.size)

    async def _ask(self, work: Work | _SetAside, superseded: asyncio.Event) -> None:
        if isinstance(work, _SetAside):
            await self._asker.set_aside(work.source, work.error)
            return
        # A refund is superseded by nothing.
        behind = asyncio.Event() if isinstance(work.task, Refund) else superseded
        await self._asker.carry_out(work, behind)
