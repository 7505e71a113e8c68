"""What happens to commands that cannot be judged, and to those behind them; and what operators order about
them. Whose turn it is, is said here; `processors.decider` asks.

The invariant: a parked command leaves its place only with an outcome, and nothing of its key is judged
before that. Everything is written with the transaction of the record that led to it.
"""

import logging
from functools import partial
from typing import Any, Final, assert_never

import msgspec

from commands.aggregate import Aggregate
from commands.parking import DiscardParked, EditParked, ParkingOrder, RetryParked
from processors.edge import Unanswerable
from processors.judge import Judge, failed
from processors.outbox import STAGE
from processors.parking import Parking
from processors.state_store import State, StoreFailed
from processors.unit_of_work import Case, Draft
from runtime.records import IncomingRecord, OutgoingRecord
from schemas import headers, limits
from schemas.decoding import DecodeError
from schemas.letters import MESSAGE_LIMIT, Failure
from schemas.parking import Action, Parked, bytes_digest, decode_parked, parked_key
from schemas.personal import NewKey, new_key
from schemas.records import Outcome, decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import Topics
from schemas.upcasting import UnsupportedVersion

logger = logging.getLogger(__name__)

NOT_ITS_FAULT: Final = (StoreFailed, MemoryError)
"""What has nothing to do with the record in hand: putting it aside would put everything aside."""


def code_of(bug: Exception) -> Code:
    """The code of a command that cannot be judged. One of a newer state is tried again by each processor that
    takes the partition over: the next one may be of the newer release.
    """
    if isinstance(bug, UnsupportedVersion):
        return Code.UNSUPPORTED_SCHEMA_VERSION
    return Code.INTERNAL_ERROR


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
        self._aside: dict[int, Exception] = {}
        """Offsets of records that are put aside when they are read again, and why."""

    def _try(self, case: Case) -> Draft | Exception:
        """What follows, or why the command cannot be judged: a handler's bug, or an unreadable state."""
        try:
            return self._answer(case)
        except NOT_ITS_FAULT:
            raise
        except Exception as bug:  # whatever it is, it must stop no other key's command
            logger.exception("cannot judge %s %s", case.request.type, case.request.command_id)
            return bug

    def _is_answered(self, case: Case) -> bool:
        """Whether its answer does not depend on its turn: it has one, or the edge refuses it."""
        if case.request.rejection is not None:
            return True
        return self._first_outcome(case.outcome_key) is not None

    def _wait(self, case: Case) -> Draft:
        """Behind a command of its aggregate that could not be judged."""
        if self._is_parked(case):
            return Draft()  # read again, because somebody has set the group's offsets back
        first = self._parking.first(case.key) or 0
        message = (
            f"an earlier command of {self._aggregate.name} {case.request.aggregate_id}, at offset {first}, "
            "could not be judged; this one waits behind it"
        )
        draft = Draft()
        self._park(draft, case, _as_it_came(case.incoming))
        draft.records += self._notice(case, first, message)
        draft.then.append(partial(self._parking.add, case.key, case.incoming.offset))
        return draft

    def _is_parked(self, case: Case) -> bool:
        """Return whether this very command is parked; another client may have written to its place."""
        if not self._parking.holds(case.key, case.incoming.offset):
            return False
        parked = self._parked(case.key, case.incoming.offset)
        return parked is not None and parked.value == (case.incoming.value or b"")

    def _fail(self, draft: Draft, case: Case, bug: Exception, attempt: int) -> Draft:
        """The first of its key could not be judged: it holds the key."""
        incoming = case.incoming
        message = f"the command could not be judged: {type(bug).__name__}: {bug}"
        code = code_of(bug)
        failure = Failure(code, message, STAGE, bug, attempt, holds_key=True)
        parked = msgspec.structs.replace(_as_it_came(incoming), attempts=attempt, code=code)
        told = "the command could not be judged; it stands in the dead letters and waits for an operator"
        draft.records.append(self._outbox.dead_letter(_in_conversation(case), failure))
        self._park(draft, case, parked)
        draft.records += self._notice(case, incoming.offset, told)
        draft.then.append(partial(self._parking.hold, case.key))
        return draft

    def _let_through(self, key: bytes, now_ms: int) -> Draft:
        """The first that waits, now that its turn has come."""
        offset = self._parking.first(key) or 0
        parked = self._parked(key, offset)
        if parked is None:
            return self._give_up(key, offset)
        case = self._case(self._as_incoming(key, parked))
        if isinstance(case, Unanswerable):  # a newer edge may be stricter
            letter = self._outbox.dead_letter(
                self._as_incoming(key, parked), failed(case.rejection)
            )
            return self._unpark(Draft(records=[letter]), key)
        draft = self._try(case)
        if not isinstance(draft, Exception):
            if parked.attempts:
                draft.records.append(self._released(case, draft, now_ms))
            return self._unpark(draft, key)
        if parked.attempts and parked.code is code_of(draft):  # its dead letter says so already
            return Draft(then=[partial(self._parking.hold, key)])
        return self._fail(Draft(), case, draft, parked.attempts + 1)

    def _give_up(self, key: bytes, offset: int) -> Draft:
        """What is parked there was not written by a processor: nobody can judge it."""
        value = self._parked_value(parked_key(key, offset))
        incoming = IncomingRecord(*self._place, offset, 0, key, value, [])
        failure = Failure(Code.MALFORMED, "the parked record is no parked command", STAGE)
        logger.error("%r at %d is no parked command", key, offset)
        return self._unpark(Draft(records=[self._outbox.dead_letter(incoming, failure)]), key)

    def _outcome(self, draft: Draft, case: Case) -> Outcome:
        """The outcome of a command for which this is written."""
        key = case.outcome_key
        return decode_outcome(draft.outcomes.get(key) or self._first_outcome(key) or b"")

    def _released(self, case: Case, draft: Draft, now_ms: int) -> OutgoingRecord:
        """The audit's entry for a command that held its key until a release came that can read the state."""
        outcome = self._outcome(draft, case)
        action = Action(
            action="retry",
            by=STAGE,
            at_ms=now_ms,
            settled=True,
            result=outcome.code or outcome.status,
            stage=STAGE,
            topic=self._place[0],
            partition=self._place[1],
            offset=case.incoming.offset,
            before=bytes_digest(case.incoming.value),
            note="this release can read the state",
        )
        return self._outbox.audit(case.key, action, case.marks)

    def _notice(self, case: Case, offset: int, message: str) -> tuple[OutgoingRecord, ...]:
        return self._outbox.notice(case.request, case.incoming, offset, message, case.marks)

    def _park(self, draft: Draft, case: Case, parked: Parked) -> None:
        record = self._outbox.parked(case.key, parked.offset, parked, case.marks)
        draft.parked[record.key or b""] = record.value
        draft.records.append(record)

    def _unpark(self, draft: Draft, key: bytes) -> Draft:
        """The first of its key waits no more; the next one's turn has come."""
        record = self._outbox.parked(key, self._parking.first(key) or 0, None, [])
        draft.parked[record.key or b""] = None
        draft.records.append(record)
        draft.then.append(partial(self._parking.leave, key))
        return draft

    def _parked_value(self, place: bytes) -> bytes | None:
        return (
            self._open.parked.get(place)
            or self._sealed.parked.get(place)
            or self._store.parked.get(place)
        )

    def _parked(self, key: bytes, offset: int) -> Parked | None:
        """What is parked there; None for what no processor has parked."""
        try:
            parked = decode_parked(self._parked_value(parked_key(key, offset)) or b"")
        except DecodeError:
            return None
        return parked if parked.offset == offset else None

    def _as_incoming(self, key: bytes, parked: Parked) -> IncomingRecord:
        """A parked command as it came."""
        marks: list[Any] = parked.headers
        at_ms = parked.occurred_at_ms
        return IncomingRecord(*self._place, parked.offset, at_ms, key, parked.value, marks)

    # What operators order.

    def _order(self, case: Case, order: ParkingOrder) -> Draft:
        """Carries an order out, once; the order has an outcome of its own, and stands in the audit."""
        first = self._first_outcome(case.outcome_key)
        if first is not None:
            return self._repeat(case, first)
        parked = self._parked(case.key, order.offset)
        holds = self._parking.first(case.key) == order.offset
        if parked is None or not holds or case.key in self._parking.moving:
            message = (
                f"the record at offset {order.offset} does not hold {self._aggregate.name} "
                f"{case.request.aggregate_id}; `orderflow dead-letters list` shows what does"
            )
            return self._conclude(Draft(), case, Rejection(Code.NOT_PARKED, message, "offset"), 0)
        first_case = self._case(self._as_incoming(case.key, parked))
        if isinstance(first_case, Unanswerable):
            return self._conclude(Draft(), case, first_case.rejection, 0)
        match order:
            case DiscardParked():
                return self._discard_parked(case, order, first_case)
            case RetryParked():
                return self._retry(case, order, first_case, first_case, parked.attempts)
            case EditParked():
                edited = self._edited(first_case, order.record)
                if isinstance(edited, Rejection):
                    return self._conclude(Draft(), case, edited, 0)
                return self._retry(case, order, first_case, edited, parked.attempts)
            case _:
                assert_never(order)

    def _discard_parked(self, case: Case, order: DiscardParked, parked: Case) -> Draft:
        reason = f": {order.note}" if order.note else ""
        rejection = Rejection(Code.DISCARDED, f"discarded by {order.by}{reason}")
        draft = self._unpark(self._conclude(Draft(), parked, rejection, 0), case.key)
        draft.records.append(self._audit(case, order, parked, "discarded"))
        return self._conclude(draft, case, None, 0)

    def _retry(
        self,
        case: Case,
        order: RetryParked | EditParked,
        parked: Case,
        now: Case,
        attempts: int,
    ) -> Draft:
        """Judges ``now`` in the place of what is parked; where that fails again, only the count changes."""
        draft = self._try(now)
        if isinstance(draft, Exception):
            message = limits.cut(f"it failed again: {draft!r}", MESSAGE_LIMIT)
            rejection = Rejection(Code.INTERNAL_ERROR, message)
            draft = self._fail(Draft(), parked, draft, attempts + 1)
            draft.records.append(self._audit(case, order, parked, "failed", now, settled=False))
            return self._conclude(draft, case, rejection, 0)
        outcome = self._outcome(draft, parked)
        self._unpark(draft, case.key)
        result = outcome.code or outcome.status
        draft.records.append(self._audit(case, order, parked, result, now))
        return self._conclude(draft, case, None, outcome.version)

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
