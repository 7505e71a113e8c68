"""Decides the commands of the sagas of one partition, and what only sagas have: the commands that
follow, appointments, and clients who wait for the end.

All of a transaction: a saga's step, its state and the commands it sends stand together or not at all.
A saga's state is written once a transaction, however many answers came in it; history has each event.
"""

import heapq
import logging
from functools import partial
from typing import Final, cast

import msgspec

from commands.aggregate import Aggregate, Event
from processors.decider import Decider
from processors.holding import NOT_ITS_FAULT
from processors.outbox import Occurrence, command_record, data_of
from processors.state_store import State
from processors.unit_of_work import Case, Draft, Known, Step
from runtime.records import Headers, OutgoingRecord
from sagas import choreography, react
from sagas.messages import StartSaga, WakeSaga
from sagas.react import FollowUp, wake_id
from schemas import headers
from schemas.decoding import DecodeError, Int64, decoder
from schemas.ids import derived_id, end_key
from schemas.records import FIRST_VERSION, decode_outcome, encode
from schemas.rejections import Code, Rejection
from schemas.saga import ENDED, EndStatus, SagaEnd, SagaEvent, SagaState, SagaStatus
from schemas.topics import SAGA, Topics
from schemas.upcasting import StateReader, version_of

logger = logging.getLogger(__name__)

SETTLED: Final = ENDED | {SagaStatus.NEEDS_OPERATOR}
"""Here a client has waited long enough: nothing more happens by itself."""


class Appointment(msgspec.Struct, frozen=True, array_like=True, order=True):
    """When a saga goes on by itself, epoch milliseconds UTC, and the number of this appointment."""

    due_ms: Int64
    timer: Int64


class _Appointed(msgspec.Struct, frozen=True):
    wakes_at_ms: Int64 | None = None
    timer: Int64 = 0


class _Stored(msgspec.Struct, frozen=True):
    state: _Appointed
    state_version: Int64 = FIRST_VERSION


UNREAD: Final = b"?"
"""In the place of the appointment of a saga whose record cannot be read."""

_decode_stored: Final = decoder(_Stored)
_whole: Final = StateReader(SagaState)
_current: Final = version_of(SagaState)
_decode_appointment: Final = decoder(Appointment)


def appointment(value: bytes) -> bytes | None:
    """Of a saga's record, its appointment, by which the store finds the sagas that have one. ``UNREAD`` for a
    record that cannot be read: a newer release may find its appointment in the same store.
    """
    try:
        stored = _decode_stored(value)
        state: _Appointed | SagaState = stored.state
        if stored.state_version != _current:
            _, state = _whole.read(value)
    except DecodeError:
        return UNREAD
    return (
        None if state.wakes_at_ms is None else encode(Appointment(state.wakes_at_ms, state.timer))
    )


class SagaDecider(Decider):
    """One partition of the sagas."""

    def __init__(
        self,
        aggregate: Aggregate,
        topics: Topics,
        partition: int,
        store: State,
        *,
        scope: str | None = None,
    ) -> None:
        super().__init__(aggregate, topics, partition, store, scope=scope)
        self._topics = topics
        self._newest: dict[bytes, tuple[OutgoingRecord, Step]] = {}
        self._waiting: dict[bytes, set[int]] = {}
        self._appointments: list[tuple[Appointment, bytes]] = []

    def ready(self) -> None:
        """Finds all appointments anew: those that were being kept may have been lost with a
        transaction.
        """
        self._appointments = [
            (_decode_appointment(mark), key)
            for key, stored in self._store.states.marked()
            if (mark := self._read_again(key, stored)) not in (None, UNREAD)
        ]
        heapq.heapify(self._appointments)
        super().ready()

    def _read_again(self, key: bytes, mark: bytes) -> bytes | None:
        """The mark of a key; where another release could not read the record, what this one finds."""
        return appointment(self._store.states.get(key) or b"") if mark == UNREAD else mark

    def due(self, now_ms: int) -> list[OutgoingRecord]:
        """As ``Decider.due``, and a command for each saga whose appointment is due and still stands."""
        records = super().due(now_ms)
        while self._appointments and self._appointments[0][0].due_ms <= now_ms:
            appointed, key = heapq.heappop(self._appointments)
            records += self._wake_at(key, appointed)
        return records

    def _wake_at(self, key: bytes, appointed: Appointment) -> list[OutgoingRecord]:
        """The command for a saga whose appointment still stands. Never raises for what is stored: a saga that
        cannot be read or woken is left alone.
        """
        try:
            saga: SagaState | None = self._load(key, self._roots).state
            if saga is not None and saga.wakes_at_ms is not None and saga.timer == appointed.timer:
                return [self._wake(key, saga)]
        except NOT_ITS_FAULT:
            raise
        except Exception:
            logger.exception("saga %r cannot be woken", key)
        return []

    def seal(self) -> list[OutgoingRecord]:
        """As ``Decider.seal``; returns the newest state of each saga that was decided."""
        records = []
        for key, (history, step) in self._newest.items():
            record = self._outbox.state(history, step.at, step.after.root)
            self._open.states[key] = record.value
            records.append(record)
        self._newest = {}
        return [*records, *super().seal()]

    def committed(
        self,
        next_events_offset: int | None,
        next_outcomes_offset: int | None,
        next_parked_offset: int | None,
    ) -> None:
        """As ``Decider.committed``; appointments count from here."""
        for key in self._sealed.states:
            saga: SagaState = self._sealed.known[key].state
            if saga.wakes_at_ms is not None:
                made = Appointment(saga.wakes_at_ms, saga.timer)
                heapq.heappush(self._appointments, (made, key))
        super().committed(next_events_offset, next_outcomes_offset, next_parked_offset)

    def discard(self) -> None:
        """As ``Decider.discard``."""
        self._newest = {}
        super().discard()

    def _write(self, case: Case, step: Step, draft: Draft) -> None:
        saga: SagaState = step.after.root
        history = self._outbox.history(case.key, step.event, step.at)
        self._require_fit(step.event, history.value)
        draft.last = history, step
        draft.records.append(history)
        saga_id = case.request.aggregate_id
        sent = react(saga_id, saga, cast(SagaEvent, step.event))
        draft.records += [self._send(saga_id, saga, follow_up, step.at) for follow_up in sent]

    def _count(self, key: bytes, last: tuple[OutgoingRecord, Step]) -> None:
        """The newest step of a saga counts."""
        _, step = self._newest[key] = last
        self._open.known[key] = Known(step.at.version, step.after.root)

    def _send(
        self, saga_id: str, saga: SagaState, follow_up: FollowUp, at: Occurrence
    ) -> OutgoingRecord:
        send = follow_up.send
        marks: Headers = [
            (headers.CORRELATION_ID, (saga.correlation_id or saga_id).encode()),
            (headers.CAUSATION_ID, at.event_id.encode()),
            (headers.ANSWER_TO, f"{saga_id}/{follow_up.token}".encode()),
            *(mark for mark in at.marks if mark[0] == headers.TRACEPARENT),
        ]
        return command_record(
            self._topics,
            send.aggregate,
            send.aggregate_id,
            kind=type(send.command),
            command_id=follow_up.command_id,
            data=data_of(send.command),
            marks=marks,
        )

    def _wake(self, key: bytes, saga: SagaState) -> OutgoingRecord:
        """Through the log, as everything that happens to a saga: its time is that of the record."""
        saga_id = key.decode()
        return command_record(
            self._topics,
            self._aggregate.name,
            saga_id,
            kind=WakeSaga,
            command_id=wake_id(saga),
            data=encode({"timer": saga.timer}),
            marks=[(headers.CORRELATION_ID, (saga.correlation_id or saga_id).encode())],
        )

    # Who waits for the end.

    def _conclude(
        self,
        draft: Draft,
        case: Case,
        rejection: Rejection | None,
        version: int,
        events: tuple[Event, ...] = (),
    ) -> Draft:
        super()._conclude(draft, case, rejection, version, events)
        if events and draft.last is not None:
            draft.then.append(partial(self._count, case.key, draft.last))
            self._tell_those_who_wait(draft, case, draft.last[1].after.root)
        if rejection is None:
            self._tell_the_end(draft, case)
        elif rejection.code is Code.MADE_BY_ANOTHER:
            draft.records += self._tell_the_order(case, rejection)
        return draft

    def _tell_the_order(self, case: Case, rejection: Rejection) -> list[OutgoingRecord]:
        """The commands by which an order hears that a part of it cannot be: its id is another saga's."""
        request = case.request
        marks: Headers = [mark for mark in case.marks if mark[0] != headers.ANSWER_TO]
        return [
            command_record(
                self._topics,
                SAGA,
                each.saga_id,
                kind=type(each.command),
                command_id=derived_id("refused", request.aggregate_id, request.command_id, str(n)),
                data=data_of(each.command),
                marks=marks,
            )
            for n, each in enumerate(
                choreography.refused(request.aggregate_id, request.command, rejection)
            )
        ]

    def _repeat(self, case: Case, first: bytes) -> Draft:
        draft = super()._repeat(case, first)
        if self._is_accepted(case, first):
            self._tell_the_end(draft, case)
        return draft

    def _is_accepted(self, case: Case, first: bytes) -> bool:
        try:
            outcome = decode_outcome(first)
        except DecodeError:
            return False
        return outcome.accepted and self._is_repetition(case, outcome)

    def _tell_those_who_wait(self, draft: Draft, case: Case, saga: SagaState) -> None:
        """The end, to who has started the saga earlier."""
        if saga.status in SETTLED and case.key in self._waiting:
            for place in self._waiting[case.key]:
                draft.records.append(self._end(case.request.aggregate_id, saga, place, case.marks))
            draft.then.append(partial(self._waiting.pop, case.key, None))

    def _tell_the_end(self, draft: Draft, case: Case) -> None:
        """To who starts a saga, or starts it again, and waits: at once if it has ended, else then.

        Who waits is remembered in memory only; a client asks again when it hears nothing.
        """
        if case.request.type != StartSaga.__name__:
            return
        partition = self._outbox.reply_partition(case.incoming)
        if partition is None:
            return
        saga: SagaState | None = (
            draft.last[1].after.root if draft.last else self._load(case.key, self._roots).state
        )
        if saga is None:
            return
        if saga.status in SETTLED:
            end = self._end(case.request.aggregate_id, saga, partition, case.marks)
            draft.records.append(end)
            return
        draft.then.append(partial(self._wait_for_the_end, case.key, partition))

    def _wait_for_the_end(self, key: bytes, partition: int) -> None:
        self._waiting.setdefault(key, set()).add(partition)

    def _end(self, saga_id: str, saga: SagaState, partition: int, marks: Headers) -> OutgoingRecord:
        end = SagaEnd(
            saga_id,
            saga.saga,
            EndStatus(saga.status),
            saga.code,
            saga.message,
            saga.undone,
            saga.updated_at_ms,
        )
        return OutgoingRecord(self._topics.replies, partition, end_key(saga_id), encode(end), marks)
