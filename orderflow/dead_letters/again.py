"""Handles a record again as the role would that could not: for letters of records that nothing waits for.

The invariant: it bears repeating. A view's row is made from its newest record, a gateway is asked under the
payment's key, and commands that follow have the ids they would have had at first, so a record that is
handled twice, or by the role and here, has the effect of one.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Never

import msgspec

from orderflow.dead_letters.letters import Letter
from payments import sending
from payments.asking import Asker
from payments.asking import Unreadable as NoPaymentEvent
from payments.asking import read as read_payment_event
from payments.http_gateway import HttpGateway
from payments.reaction import Followup
from payments.role import GatewayNotConfigured
from processors import reactor
from readmodels.mending import mend
from readmodels.records import STAGE_DECODE, STAGE_PROJECT, Unreadable
from readmodels.records import read as read_change
from readmodels.views import VIEWS, by_topic
from runtime.records import IncomingRecord, OutgoingRecord
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.headers import as_bytes

GATEWAY_S: Final = 30.0
"""Longer than any gateway's time limit; one that is away is asked again by whoever orders it."""


class NotAgain(Exception):
    """A record of this stage cannot be handled again; the message says what can be done instead."""


class FailedAgain(Exception):
    """The record still cannot be handled; ``code`` as in a dead letter."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Handled(msgspec.Struct, frozen=True):
    """What became of it, for people, and the commands that follow, which are not sent yet."""

    result: str
    records: tuple[OutgoingRecord, ...] = ()


def handle_again(settings: Settings, letter: Letter, record: IncomingRecord) -> Handled:
    """``record``: with the place, key, bytes and headers that it had at first.

    Raises FailedAgain; NotAgain; KafkaException, RedisError, RedisNotConfigured, GatewayNotConfigured, and
    TimeoutError when the gateway gives no definite answer for 30 s.
    """
    handle = _HANDLERS.get(letter.stage)
    if handle is None:
        raise NotAgain(
            f"{letter.id} is a record of {letter.topic} that {letter.stage} could not handle. Mend the "
            "cause, then discard the letter; `orderflow webhooks redeliver` delivers an event by hand."
        )
    return handle(settings, record)


def _by_views(settings: Settings, record: IncomingRecord) -> Handled:
    """The rows anew, from the newest record of the aggregate, which may be another one by now."""
    views = by_topic(topics_of(settings), VIEWS).get(record.topic, [])
    marks = as_bytes(record.headers)
    try:
        for view in views:
            read_change(record.key, record.value, marks, view.states, view.project)
    except Unreadable as error:
        raise FailedAgain(error.code, str(error)) from error
    aggregate_id = (record.key or b"").decode()
    mended = [one for view in views for one in mend(settings, view.name, [aggregate_id])]
    return Handled(", ".join(f"{one.view} {one.result}" for one in mended))


def _by_reactor(settings: Settings, record: IncomingRecord) -> Handled:
    try:
        return _commands(reactor.reactions(record, topics_of(settings)))
    except Exception as cause:  # of any handler, as in the reactor itself
        failure = reactor.failure(cause)
        raise FailedAgain(failure.code, failure.message) from cause


def _by_payments(settings: Settings, record: IncomingRecord) -> Handled:
    try:
        work = read_payment_event(record)
    except NoPaymentEvent as error:
        raise FailedAgain(error.code, str(error)) from error
    followups = _Followups(settings)

    async def ask() -> None:
        if settings.gateway_url is None:
            raise GatewayNotConfigured
        url, limit_ms = settings.gateway_url, settings.gateway_timeout_ms
        async with HttpGateway(url, limit_ms) as gateway, asyncio.timeout(GATEWAY_S):
            if work is not None:
                await Asker(gateway, followups).carry_out(work, asyncio.Event())

    try:
        asyncio.run(ask())
    except TimeoutError:
        raise TimeoutError(
            f"the payment gateway gave no definite answer in {GATEWAY_S:g} s; the letter stays open"
        ) from None
    return _commands(followups.records)


class _Followups:
    """Where payments would send: keeps it. Satisfies ``payments.asking.Outgoing``."""

    def __init__(self, settings: Settings) -> None:
        self._topics = topics_of(settings)
        self.records: list[OutgoingRecord] = []

    async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
        """Kept."""
        self.records.append(sending.record_of(followup, event_id, source, self._topics))

    async def dead_letter(self, source: IncomingRecord, code: str, cause: Exception) -> Never:
        """It is one already. Raises FailedAgain."""
        raise FailedAgain(code, str(cause)) from cause


def _commands(records: list[OutgoingRecord]) -> Handled:
    what = "1 command follows" if len(records) == 1 else f"{len(records)} commands follow"
    return Handled(what, tuple(records))


_HANDLERS: Final[dict[str, Callable[[Settings, IncomingRecord], Handled]]] = {
    STAGE_DECODE: _by_views,
    STAGE_PROJECT: _by_views,
    reactor.ROLE: _by_reactor,
    sending.STAGE: _by_payments,
}
