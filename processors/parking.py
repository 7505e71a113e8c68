"""Which keys of one partition are held by a command that could not be judged, and what waits behind it.

The invariant: a key with anything parked takes nothing out of turn. Its first record either has failed,
and then the key is *held* until an operator orders something, or it has not, and then it is to be judged
next. So what a killed processor had begun to let through goes on after a restart by itself.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from schemas.parking import read_parked_key

logger = logging.getLogger(__name__)

MAX_SHOWN: Final = 200
"""Bytes of a key that is nobody's, in the log."""


class Parking:
    """Offsets of the parked commands by aggregate id, in order. Empty in all but bad times."""

    def __init__(self) -> None:
        self._lanes: dict[bytes, deque[int]] = {}
        self._moving: set[bytes] = set()

    def __contains__(self, aggregate_id: bytes) -> bool:
        return aggregate_id in self._lanes

    @property
    def moving(self) -> set[bytes]:
        """Aggregates whose first parked command is to be judged."""
        return self._moving

    def first(self, aggregate_id: bytes) -> int | None:
        """Offset of the first parked command; None where nothing is."""
        lane = self._lanes.get(aggregate_id)
        return lane[0] if lane else None

    def holds(self, aggregate_id: bytes, offset: int) -> bool:
        """Return whether something is parked at this offset. Commands are parked in the order of their
        offsets, so a new one is not searched for.
        """
        lane = self._lanes[aggregate_id]
        return offset <= lane[-1] and offset in lane

    def load(self, keys: Iterable[bytes], belongs: Callable[[bytes], bool]) -> None:
        """Replace everything by the keys of the parked records. Which are moving is not known yet: see
        ``move``. Keys that no processor writes are logged and ignored. ``belongs``: True if commands of this
        aggregate id are decided here.
        """
        self.clear()
        for key in keys:
            place = read_parked_key(key)
            if place is None or not belongs(place[0]):
                logger.error("no key of a command parked here: %r", key[:MAX_SHOWN])
                continue
            aggregate_id, offset = place
            self._lanes.setdefault(aggregate_id, deque()).append(offset)

    def heads(self) -> list[tuple[bytes, int]]:
        """Of each aggregate, the first parked command."""
        return [(aggregate_id, lane[0]) for aggregate_id, lane in self._lanes.items()]

    def add(self, aggregate_id: bytes, offset: int) -> None:
        """Add a command behind all others of its aggregate; where there are none, it holds the key.

        No processor has parked a record at its offset or beyond. The command replaces the one at its offset;
        where it comes first by that, it has not failed: it is to be judged.
        """
        lane = self._lanes.get(aggregate_id)
        if lane is None:
            self._lanes[aggregate_id] = deque((offset,))
        elif offset > lane[-1]:
            lane.append(offset)
        else:
            self._lanes[aggregate_id] = deque(sorted({*lane, offset}))
            if offset <= lane[0]:
                self._moving.add(aggregate_id)

    def move(self, aggregate_id: bytes) -> None:
        """The first has not failed: it is to be judged."""
        self._moving.add(aggregate_id)

    def hold(self, aggregate_id: bytes) -> None:
        """The first has failed."""
        self._moving.discard(aggregate_id)

    def leave(self, aggregate_id: bytes) -> None:
        """The first is dealt with; the next is to be judged."""
        lane = self._lanes[aggregate_id]
        lane.popleft()
        if lane:
            self._moving.add(aggregate_id)
        else:
            del self._lanes[aggregate_id]
            self._moving.discard(aggregate_id)

    def clear(self) -> None:
        """Forgets everything."""
        self._lanes = {}
        self._moving = set()
