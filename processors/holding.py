"""What happens to commands that cannot be judged, and to those behind them; and what operators order about
them. Whose turn it is, is said here; `processors.decider` asks.

The invariant: a parked command leaves its place only with an outcome, and nothing of its key is judged
before that. Everything is written with the transaction of the record that led to it.
"""

import logging
from typing import Any, Final, assert_never

import msgspec

from commands.aggregate import Aggregate
from commands.parking import DiscardParked, EditParked, ParkingOrder, RetryParked
from processors.edge import Unanswerable
from processors.judge import Case, Judge, failed
from processors.outbox import STAGE
from processors.parking import Parking
from processors.state_store import State
from runtime.records import IncomingRecord, OutgoingRecord
from schemas import headers
from schemas.letters import MESSAGE_LIMIT, Failure
from schemas.parking import Action, Parked, bytes_digest, decode_parked, parked_key
from schemas.personal import NewKey, new_key
from schemas.records import decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import Topics
from schemas.upcasting import UnsupportedVersion

logger = logging.getLogger(__name__)


class Holding(Judge):
    """A judge who keeps the order of an aggregate's commands when one cannot be judged."""

    def __init__(
        self,
        aggregate: Aggregate,
        topics: Topics,
        partition: int,
        store: State,
        new_key: NewKey = new_key,
        *,
        scope: str | None = None,
    ) -> None:
        super().__init__(aggregate, topics, partition, store, new_key, scope=scope)
        self._place = topics.commands(aggregate.name), partition
        self._parking = Parking()

    def _try(self, case: Case) -> list[OutgoingRecord] | Exception:
        """The records that follow, or the bug. Raises UnsupportedVersion: no bug of a handler."""
        try:
            return self._answer(case)
        except UnsupportedVersion:
            raise
        except Exception as bug:  # whatever a handler's bug is, it must stop no other key's command
            logger.exception("cannot judge %s %s", case.request.type, case.request.command_id)
            return bug

    def _is_answered(self, case: Case) -> bool:
        """Whether its answer does not depend on its turn: it has one, or the edge refuses it."""
        if case.request.rejection is not None:
            return True
        return self._first_outcome(case.outcome_key) is not None

    def _wait(self, case: Case) -> list[OutgoingRecord]:
        """Behind a command of its aggregate that could not be judged."""
        if self._parking.has_passed(case.key, case.incoming.offset):
            return []  # read again, because somebody has set the group's offsets back
        first = self._parking.first(case.key) or 0
        self._parking.add(case.key, case.incoming.offset)
        message = (
            f"an earlier command of {self._aggregate.name} {case.request.aggregate_id}, at offset {first}, "
            "could not be judged; this one waits behind it"
        )
        parked = self._park(case, _as_it_came(case.incoming))
        return [parked, *self._notice(case, first, message)]

    def _fail(self, case: Case, bug: Exception, attempt: int) -> list[OutgoingRecord]:
        """The first of its key could not be judged: it holds the key."""
        incoming = case.incoming
        self._parking.hold(case.key)
        message = f"the command could not be judged: {type(bug).__name__}: {bug}"
        failure = Failure(Code.INTERNAL_ERROR, message, STAGE, bug, attempt, holds_key=True)
        parked = msgspec.structs.replace(
            _as_it_came(incoming), attempts=attempt, code=Code.INTERNAL_ERROR
        )
        told = "the command could not be judged; it stands in the dead letters and waits for an operator"
        return [
            self._outbox.dead_letter(_in_conversation(case), failure),
            self._park(case, parked),
            *self._notice(case, incoming.offset, told),
        ]

    def _let_through(self, key: bytes) -> list[OutgoingRecord]:
        """The first that waits, now that its turn has come."""
        incoming = self._incoming(key, self._parking.first(key) or 0)
        case = self._case(incoming)
        if isinstance(case, Unanswerable):  # a newer edge may be stricter
            letter = self._outbox.dead_letter(incoming, failed(case.rejection))
            return [letter, self._unpark(key)]
        records = self._try(case)
        if isinstance(records, Exception):
            return self._fail(case, records, 1)
        return [*records, self._unpark(key)]

    def _notice(self, case: Case, offset: int, message: str) -> tuple[OutgoingRecord, ...]:
        return self._outbox.notice(case.request, case.incoming, offset, message, case.marks)

    def _park(self, case: Case, parked: Parked) -> OutgoingRecord:
        record = self._outbox.parked(case.key, parked.offset, parked, case.marks)
        self._open.parked[record.key or b""] = record.value
        return record

    def _unpark(self, key: bytes) -> OutgoingRecord:
        """The first of its key waits no more; the next one's turn has come."""
        record = self._outbox.parked(key, self._parking.first(key) or 0, None, [])
        self._open.parked[record.key or b""] = None
        self._parking.leave(key)
        return record

    def _parked(self, key: bytes, offset: int) -> Parked:
        place = parked_key(key, offset)
        value = (
            self._open.parked.get(place)
            or self._sealed.parked.get(place)
            or self._store.parked.get(place)
        )
        return decode_parked(value or b"")

    def _incoming(self, key: bytes, offset: int) -> IncomingRecord:
        """A parked command as it came."""
        parked = self._parked(key, offset)
        marks: list[Any] = parked.headers
        topic, partition = self._place
        return IncomingRecord(
            topic, partition, offset, parked.occurred_at_ms, key, parked.value, marks
        )

    # What operators order.

    def _order(self, case: Case, order: ParkingOrder) -> list[OutgoingRecord]:
        """Carries an order out, once; the order has an outcome of its own, and stands in the audit."""
        first = self._first_outcome(case.outcome_key)
        if first is not None:
            return self._repeat(case, first)
        if self._parking.first(case.key) != order.offset or case.key in self._parking.moving:
            message = (
                f"the record at offset {order.offset} does not hold {self._aggregate.name} "
                f"{case.request.aggregate_id}; `orderflow dead-letters list` shows what does"
            )
            return self._conclude(case, Rejection(Code.NOT_PARKED, message, "offset"), 0)
        parked = self._case(self._incoming(case.key, order.offset))
        if isinstance(parked, Unanswerable):
            return self._conclude(case, parked.rejection, 0)
        match order:
            case DiscardParked():
                return self._discard_parked(case, order, parked)
            case RetryParked():
                return self._retry(case, order, parked, parked)
            case EditParked():
                edited = self._edited(parked, order.record)
                if isinstance(edited, Rejection):
                    return self._conclude(case, edited, 0)
                return self._retry(case, order, parked, edited)
            case _:
                assert_never(order)

    def _discard_parked(
        self, case: Case, order: DiscardParked, parked: Case
    ) -> list[OutgoingRecord]:
        reason = f": {order.note}" if order.note else ""
        rejection = Rejection(Code.DISCARDED, f"discarded by {order.by}{reason}")
        return [
            *self._conclude(parked, rejection, 0),
            self._unpark(case.key),
            self._audit(case, order, parked, "discarded"),
            *self._conclude(case, None, 0),
        ]

    def _retry(
        self, case: Case, order: RetryParked | EditParked, parked: Case, now: Case
    ) -> list[OutgoingRecord]:
        """Judges ``now`` in the place of what is parked; where that fails again, only the count changes."""
        records = self._try(now)
        if isinstance(records, Exception):
            attempt = self._parked(case.key, order.offset).attempts + 1
            message = f"it failed again: {records!r}"[:MESSAGE_LIMIT]
            rejection = Rejection(Code.INTERNAL_ERROR, message)
            return [
                *self._fail(parked, records, attempt),
                self._audit(case, order, parked, "failed", now, settled=False),
                *self._conclude(case, rejection, 0),
            ]
        outcome = decode_outcome(self._first_outcome(parked.outcome_key) or b"")
        return [
            *records,
            self._unpark(case.key),
            self._audit(case, order, parked, outcome.code or outcome.status, now),
            *self._conclude(case, None, outcome.version),
        ]

    def _edited(self, parked: Case, text: str) -> Case | Rejection:
        """The command with other bytes. To its sender it is the same: the digest stays."""
        incoming = msgspec.structs.replace(parked.incoming, value=text.encode())
        edited = self._case(incoming)
        if isinstance(edited, Unanswerable):
            return edited.rejection
        request = edited.request
        if request.rejection is not None:
            return request.rejection
        if request.command_id != parked.request.command_id:
            message = f"command_id must stay {parked.request.command_id}"
            return Rejection(Code.INVALID_DATA, message, "record")
        if isinstance(request.command, ParkingOrder):
            return Rejection(Code.INVALID_DATA, "an order cannot wait for itself", "record")
        same = msgspec.structs.replace(request, digest=parked.request.digest)
        return msgspec.structs.replace(edited, request=same)

    def _audit(
        self,
        case: Case,
        order: ParkingOrder,
        parked: Case,
        result: str,
        now: Case | None = None,
        *,
        settled: bool = True,
    ) -> OutgoingRecord:
        topic, partition = self._place
        before = parked.incoming.value
        replaced = now is not None and now is not parked
        action = Action(
            action=_NAMES[type(order)],
            by=order.by,
            at_ms=case.incoming.occurred_at_ms,
            settled=settled,
            result=result,
            stage=STAGE,
            topic=topic,
            partition=partition,
            offset=order.offset,
            before=bytes_digest(before),
            after=bytes_digest(now.incoming.value) if now is not None and replaced else "",
            note=order.note or "",
        )
        return self._outbox.audit(case.key, action, parked.marks)


_NAMES: Final = {RetryParked: "retry", DiscardParked: "discard", EditParked: "edit"}


def _as_it_came(incoming: IncomingRecord) -> Parked:
    return Parked(
        offset=incoming.offset,
        occurred_at_ms=incoming.occurred_at_ms,
        value=incoming.value or b"",
        headers=headers.as_bytes(incoming.headers),
    )


def _in_conversation(case: Case) -> IncomingRecord:
    """The record with the id of its conversation, by which it is found; nothing of it is replaced."""
    incoming = case.incoming
    if any(name == headers.CORRELATION_ID for name, _ in incoming.headers):
        return incoming
    mark = headers.CORRELATION_ID, case.request.command_id.encode()
    return msgspec.structs.replace(incoming, headers=[*incoming.headers, mark])
