"""Decides the commands of one partition, one after the other. Knows the store but no Kafka client.

``seal()`` is the border between two transactions; nothing reaches the store before ``committed()``.

A command that cannot be judged is *parked*: it stands in the dead letters, has no outcome yet, and the
commands that follow for the same aggregate are parked behind it; all others go on. The invariant: the
commands of an aggregate are judged in their order of arrival, and each has exactly one outcome. See
docs/adr/0009-parked-commands.md.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, cast

from commands.parking import ORDERS, ParkingOrder
from processors.edge import Unanswerable
from processors.holding import NOT_ITS_FAULT, Holding
from processors.judge import failed
from processors.state_store import Copy
from processors.unit_of_work import Case, Draft, Pending
from runtime.records import IncomingRecord, OutgoingRecord
from schemas import limits
from schemas.rejections import Code

logger = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 500
"""Parked commands that are let through with one transaction, beside those that come in."""

MOST_RECENT: Final = 2_000
RECENT_BYTES: Final = 8 * limits.MIB
"""Decoded states that are kept of a partition, and the size of their records; beyond it they are dropped."""

TRIED_AGAIN: Final = frozenset({Code.UNSUPPORTED_SCHEMA_VERSION})
"""Failed for one of these, a parked command is judged again whenever a processor takes the partition over."""


class Decider(Holding):
    """One partition of one aggregate."""

    def decide(self, incoming: IncomingRecord) -> list[OutgoingRecord]:
        """The records that follow from one command's record. Never raises for what came in."""
        return self._decide(incoming, self._read(incoming))

    def decide_all(self, incoming: Sequence[IncomingRecord]) -> list[OutgoingRecord]:
        """The same of several records in their order; the store is asked once for what they need."""
        cases = [self._read(record) for record in incoming]
        self._look_up([case for case in cases if isinstance(case, Case)])
        records: list[OutgoingRecord] = []
        for record, case in zip(incoming, cases, strict=True):
            records += self._decide(record, case)
        self._forget()
        return records

    def put_aside(self, offset: int, cause: Exception) -> None:
        """Make the record at this offset a dead letter when it is read again: what follows from it cannot be
        written.
        """
        self._aside[offset] = cause

    def _read(self, incoming: IncomingRecord) -> Case | Unanswerable | Exception:
        """What a record asks for. The last line of defence: whatever raises, only the record is put aside."""
        if self._aside and incoming.offset in self._aside:
            return self._aside[incoming.offset]
        try:
            return self._case(incoming)
        except NOT_ITS_FAULT:
            raise
        except Exception as bug:
            logger.exception("cannot read the record at %d", incoming.offset)
            return bug

    def _decide(
        self, incoming: IncomingRecord, case: Case | Unanswerable | Exception
    ) -> list[OutgoingRecord]:
        """As ``_read``, the last line of defence. Nothing counts before its records are built."""
        try:
            if isinstance(case, Case):
                return self._open.add(self._draft(case))
            if isinstance(case, Unanswerable):
                return [self._outbox.dead_letter(incoming, failed(case.rejection))]
        except NOT_ITS_FAULT:
            raise
        except Exception as bug:
            logger.exception("cannot decide the record at %d", incoming.offset)
            case = bug
        return [self._outbox.put_aside(incoming, case)]

    def _draft(self, case: Case) -> Draft:
        """What follows from a command."""
        order = case.request.command
        if type(order) in ORDERS:  # and not isinstance, which is slow for pydantic's classes
            return self._order(case, cast(ParkingOrder, order))
        if case.key in self._parking and not self._is_answered(case):
            return self._wait(case)
        draft = self._try(case)
        if isinstance(draft, Exception):
            held = Draft(then=[partial(self._parking.add, case.key, case.incoming.offset)])
            return self._fail(held, case, draft, 1)
        return draft

    @property
    def moving(self) -> bool:
        """Whether something parked is to be judged: ``due`` does it."""
        return bool(self._parking.moving)

    def ready(self) -> None:
        """The store is up to date with the topics, for the first time or again."""
        self._parking.load(self._store.parked.keys(), self._is_decided_here)
        for aggregate_id, offset in self._parking.heads():
            if not self._is_held(aggregate_id, offset):
                self._parking.move(aggregate_id)

    def _is_decided_here(self, aggregate_id: bytes) -> bool:
        """Return True if this partition takes the aggregate's commands: a processor parks no others."""
        return self._edge.partition(aggregate_id) == self._place[1]

    def _is_held(self, key: bytes, offset: int) -> bool:
        """Return whether a command is parked there that has failed and waits for an operator.

        What another client has written is judged, and given up where it is no command: no dead letter tells
        an operator of it.
        """
        parked = self._parked(key, offset)
        if parked is None or not parked.attempts or parked.code in TRIED_AGAIN:
            return False
        return not isinstance(self._read(self._as_incoming(key, parked)), Unanswerable)

    def due(self, now_ms: int) -> list[OutgoingRecord]:
        """What time has made due: here, parked commands whose turn has come."""
        records: list[OutgoingRecord] = []
        for _ in range(MOST_AT_ONCE):
            if not self._parking.moving:
                break
            records += self._let_one_through(next(iter(self._parking.moving)), now_ms)
        return records

    def _let_one_through(self, key: bytes, now_ms: int) -> list[OutgoingRecord]:
        """As ``_read``, the last line of defence: a key that raises stays held until the next start."""
        try:
            return self._open.add(self._let_through(key, now_ms))
        except NOT_ITS_FAULT:
            raise
        except Exception:
            logger.exception("cannot let through what is parked of %s %r", self._place[0], key)
            self._parking.hold(key)
            return []

    def seal(self) -> list[OutgoingRecord]:
        """What was decided so far is to be committed; what follows belongs to the next transaction.

        Returns what is only written at the end of a transaction: here, nothing.
        """
        self._sealed, self._open = self._open, Pending()
        return []

    def committed(
        self,
        next_events_offset: int | None,
        next_outcomes_offset: int | None,
        next_parked_offset: int | None,
    ) -> None:
        """The sealed transaction stands: keeps it. Offsets as ``PartitionCopy.write``'s; None where nothing
        was written. Raises RuntimeError where something was: not stored, it would be forgotten.
        """
        sealed, store = self._sealed, self._store
        _keep(store.states, sealed.states, next_events_offset)
        _keep(store.inbox, sealed.outcomes, next_outcomes_offset)
        _keep(store.parked, sealed.parked, next_parked_offset)
        self._remember(sealed)
        self._sealed = Pending()

    def _remember(self, sealed: Pending) -> None:
        """What is in use stands as it was just committed. What is new does not come in: most of it is not
        asked for before long, and memory that is not touched again is what makes a processor slow.
        """
        recent = self._recent
        if len(recent) > MOST_RECENT or self._recent_bytes > RECENT_BYTES:
            recent.clear()
            self._recent_bytes = 0
        for key in recent.keys() & sealed.known.keys():
            recent[key] = sealed.known[key]
            self._recent_bytes += len(sealed.states.get(key) or b"")

    def discard(self) -> None:
        """Forgets everything that is not committed. What is parked is known again when it is ``ready``."""
        self._open = Pending()
        self._sealed = Pending()
        self._recent = {}  # whether what was under way stands is not known
        self._recent_bytes = 0
        self._parking.clear()


def _keep(copy: Copy, changes: Mapping[bytes, bytes | None], next_offset: int | None) -> None:
    if next_offset is not None:
        copy.write(changes, next_offset)
    elif changes:
        raise RuntimeError("records were committed, but the client did not report their offsets")
