"""How a decision is written down: which records go to which topic of one aggregate's partition.

Pure: from values to records. Names and headers are looked up once a partition or once a command,
because this runs three times for every command.
"""

from typing import Any, Final

import msgspec

from commands.aggregate import Command, Event
from processors.edge import Request
from runtime.records import Headers, IncomingRecord, OutgoingRecord, dead_letter
from sagas.messages import RecordAnswer
from schemas import headers, limits
from schemas.decoding import whole_number
from schemas.ids import derived_id, is_id, reply_key
from schemas.letters import Failure
from schemas.parking import Action, Parked, ParkedNotice, notice_key, parked_key
from schemas.partitioner import partition_for
from schemas.personal import key_text, sealed, withheld
from schemas.records import (
    CommandRecord,
    EventRecord,
    Outcome,
    OutcomeStatus,
    WrittenEvent,
    encode,
    with_state,
)
from schemas.rejections import Code, Rejection
from schemas.topics import SAGA, Topics
from schemas.upcasting import version_of

STAGE = "command-processor"

_ACCEPTED: Final = OutcomeStatus.ACCEPTED  # an enum looks its members up anew each time
_REJECTED: Final = OutcomeStatus.REJECTED


class Occurrence(msgspec.Struct, frozen=True, gc=False):
    """What makes an event this event: its id, the version it leads to, its time, and its headers.

    ``subject_key``: with what its personal fields are sealed, and what its aggregate keeps; None: nothing.
    """

    event_id: str
    version: int
    ms: int
    marks: Headers
    subject_key: bytes | None = None


class Outbox:
    """Writes for one partition of one aggregate."""

    def __init__(self, aggregate: str, topics: Topics, partition: int) -> None:
        self._aggregate = aggregate
        self._partition = partition
        self._events = topics.events(aggregate)
        self._history = topics.history(aggregate)
        self._outcomes = topics.outcomes(aggregate)
        self._replies = topics.replies
        self._reply_partitions = topics.reply_partitions
        self._parked = topics.parked(aggregate)
        self._dead_letters = topics.dead_letters
        self._audit = topics.audit
        self._topics = topics

    def event(
        self, key: bytes, event: Event, at: Occurrence, state: msgspec.Struct
    ) -> tuple[OutgoingRecord, OutgoingRecord]:
        """The event with the state after it, and the event alone for the history."""
        history = self.history(key, event, at)
        return self.state(history, at, state), history

    def history(self, key: bytes, event: Event, at: Occurrence) -> OutgoingRecord:
        """The event alone."""
        kind = type(event)
        data: Event | msgspec.Raw = event
        if at.subject_key is not None:
            stream = f"{self._aggregate}/{key.decode()}"
            data = msgspec.Raw(sealed(event, at.subject_key, stream, at.event_id))
        record = WrittenEvent(kind.__name__, at.event_id, at.version, at.ms, version_of(kind), data)
        return OutgoingRecord(self._history, self._partition, key, encode(record), at.marks)

    def state(
        self, history: OutgoingRecord, at: Occurrence, state: msgspec.Struct
    ) -> OutgoingRecord:
        """The same event with the state after it."""
        value = with_state(
            history.value or b"", state, version_of(type(state)), key_text(at.subject_key)
        )
        return OutgoingRecord(self._events, self._partition, history.key, value, at.marks)

    def part(
        self, key: bytes, event: Event, at: Occurrence, state: msgspec.Struct | None
    ) -> OutgoingRecord:
        """A part's state of its own, or its tombstone; the event's data stands on the root's record."""
        if state is None:
            deleted_at = (headers.AGGREGATE_VERSION, str(at.version).encode())
            return OutgoingRecord(self._events, self._partition, key, None, [*at.marks, deleted_at])
        record = EventRecord(
            type=type(event).__name__,
            id=at.event_id,
            version=at.version,
            occurred_at_ms=at.ms,
            state_version=version_of(type(state)),
            state=msgspec.Raw(encode(state)),
        )
        return OutgoingRecord(self._events, self._partition, key, encode(record), at.marks)

    def outcome(self, key: bytes, value: bytes, marks: Headers) -> OutgoingRecord:
        """The one outcome of a command."""
        return OutgoingRecord(self._outcomes, self._partition, key, value, marks)

    def reply(
        self, request: Request, incoming: IncomingRecord, outcome: bytes, marks: Headers
    ) -> tuple[OutgoingRecord, ...]:
        """The outcome for a sender that waits; nothing where nobody does."""
        partition = self.reply_partition(incoming)
        if partition is None:
            return ()
        key = reply_key(self._aggregate, request.aggregate_id, request.command_id)
        told = [*marks, _reply_token(incoming.headers)]
        return (OutgoingRecord(self._replies, partition, key, outcome, told),)

    def reply_partition(self, incoming: IncomingRecord) -> int | None:
        """Where the sender waits; None when nobody does."""
        return _reply_partition(incoming.headers, self._reply_partitions)

    def answer(
        self,
        request: Request,
        rejection: Rejection | None,
        events: tuple[Event, ...],
        marks: Headers,
    ) -> tuple[OutgoingRecord, ...]:
        """What came of a command, as a command for the saga that sent it; nothing where none did."""
        to = self._answer_to(marks)
        if to is None:
            return ()
        data: dict[str, Any] = {"accepted": rejection is None}
        if rejection is not None:
            message = limits.cut(rejection.message, limits.MAX_MESSAGE)
            data |= {"code": rejection.code, "message": message}
        if events:
            data["events"] = [{"type": type(e).__name__, "data": withheld(e)} for e in events]
        answer_id = derived_id(self._aggregate, request.command_id)
        return (self._answer(to, request, answer_id, data, marks),)

    def answer_again(
        self, request: Request, incoming: IncomingRecord, first: Outcome, marks: Headers
    ) -> tuple[OutgoingRecord, ...]:
        """The same for a repeated command, without the events, which nobody remembers."""
        to = self._answer_to(marks)
        if to is None:
            return ()
        data: dict[str, Any] = {"accepted": first.accepted, "repeated": True}
        if not first.accepted:
            message = limits.cut(first.message or "", limits.MAX_MESSAGE)
            data |= {"code": first.code, "message": message}
        # Its id tells it from the first answer, whose place in the saga's memory it must not take.
        place = f"{incoming.partition}-{incoming.offset}"
        answer_id = derived_id(self._aggregate, request.command_id, place)
        return (self._answer(to, request, answer_id, data, marks),)

    def _answer_to(self, marks: Headers) -> tuple[str, str] | None:
        """Saga id and token; None when nobody waits, or what stands there names no saga."""
        for name, value in marks:
            if name == headers.ANSWER_TO and isinstance(value, bytes):
                saga_id, _, token = value.decode(errors="replace").partition("/")
                return (saga_id, token) if is_id(saga_id) and token else None
        return None

    def _answer(
        self,
        to: tuple[str, str],
        request: Request,
        answer_id: str,
        data: dict[str, Any],
        marks: Headers,
    ) -> OutgoingRecord:
        saga_id, token = to
        data = {"token": token, "type": request.type, **data}
        encoded = encode(data)
        if len(encoded) > limits.MAX_ANSWER_BYTES:
            encoded = encode({name: value for name, value in data.items() if name != "events"})
        passed = [mark for mark in marks if mark[0] != headers.ANSWER_TO]
        return command_record(
            self._topics,
            SAGA,
            saga_id,
            kind=RecordAnswer,
            command_id=answer_id,
            data=encoded,
            marks=passed,
        )

    def dead_letter(self, incoming: IncomingRecord, failure: Failure) -> OutgoingRecord:
        """The record as it came, with the cause and the place in headers."""
        return dead_letter(incoming, failure, self._dead_letters)

    def put_aside(self, incoming: IncomingRecord, bug: Exception) -> OutgoingRecord:
        """The dead letter of a record that could not be handled, for a reason that is no rejection."""
        message = f"the record could not be handled: {type(bug).__name__}: {bug}"
        return self.dead_letter(incoming, Failure(Code.INTERNAL_ERROR, message, STAGE, bug))

    def parked(
        self, aggregate_id: bytes, offset: int, parked: Parked | None, marks: Headers
    ) -> OutgoingRecord:
        """A command that waits; None: it waits no more."""
        key = parked_key(aggregate_id, offset)
        value = None if parked is None else encode(parked)
        return OutgoingRecord(self._parked, self._partition, key, value, marks)

    def notice(
        self, request: Request, incoming: IncomingRecord, offset: int, message: str, marks: Headers
    ) -> tuple[OutgoingRecord, ...]:
        """To a sender that waits: there is no outcome yet, and the record at ``offset`` is why."""
        partition = self.reply_partition(incoming)
        if partition is None:
            return ()
        ids = self._aggregate, request.aggregate_id, request.command_id
        value = encode(ParkedNotice(*ids, offset, message))
        key, told = notice_key(reply_key(*ids)), [*marks, _reply_token(incoming.headers)]
        return (OutgoingRecord(self._replies, partition, key, value, told),)

    def audit(self, key: bytes, action: Action, marks: Headers) -> OutgoingRecord:
        """What an operator has ordered, and what came of it."""
        return OutgoingRecord(self._audit, 0, key, encode(action), marks)

    def outcome_value(
        self, request: Request, rejection: Rejection | None, version: int, at_ms: int
    ) -> bytes:
        """JSON of an outcome: accepted where there is no rejection."""
        if rejection is None:
            outcome = Outcome(
                command_id=request.command_id,
                type=request.type,
                aggregate=self._aggregate,
                aggregate_id=request.aggregate_id,
                status=_ACCEPTED,
                version=version,
                decided_at_ms=at_ms,
                digest=request.digest,
            )
        else:
            outcome = Outcome(
                command_id=request.command_id,
                type=request.type,
                aggregate=self._aggregate,
                aggregate_id=request.aggregate_id,
                status=_REJECTED,
                version=version,
                decided_at_ms=at_ms,
                digest=request.digest,
                code=rejection.code,
                message=limits.cut(rejection.message, limits.MAX_MESSAGE),
                field=rejection.field and limits.cut(rejection.field, limits.MAX_FIELD),
            )
        return encode(outcome)


def marks_of(command_id: bytes, incoming: Headers) -> Headers:
    """Headers of all that follows from a command: who asked, and in which conversation and trace."""
    causation = headers.CAUSATION_ID, command_id
    if not incoming:
        return [causation, (headers.CORRELATION_ID, command_id)]
    correlation: str | bytes | None = command_id
    marks: Headers = [causation]
    for name, value in incoming:
        if name == headers.CORRELATION_ID:
            correlation = value
        elif name in (headers.TRACEPARENT, headers.ANSWER_TO):
            marks.append((name, value))
    marks.append((headers.CORRELATION_ID, correlation))
    return marks


def command_record(
    topics: Topics,
    aggregate: str,
    aggregate_id: str,
    *,
    kind: type[Command],
    command_id: str,
    data: bytes,
    marks: Headers,
) -> OutgoingRecord:
    """A command that the pipeline itself sends; ``data`` is the JSON of its fields."""
    command = CommandRecord(
        type=kind.__name__,
        command_id=command_id,
        data=msgspec.Raw(data),
        schema_version=version_of(kind),
    )
    key = aggregate_id.encode()
    partition = partition_for(key, topics.partitions)
    return OutgoingRecord(topics.commands(aggregate), partition, key, encode(command), marks)


def data_of(command: Command) -> bytes:
    """Return the data of a command that the pipeline itself sends, without what has its default.

    A processor of the release before, which runs beside this one during an upgrade, refuses a field that it
    does not know.
    """
    return command.__pydantic_serializer__.to_json(command, exclude_defaults=True)


def _reply_partition(incoming: Headers, partitions: int) -> int | None:
    for name, value in incoming:
        if name == headers.REPLY_PARTITION:
            partition = whole_number(value)
            if partition is not None and partition < partitions:
                return partition
    return None


def _reply_token(incoming: Headers) -> tuple[str, bytes]:
    """Return the header by which the sender knows the reply: their token. It is empty where they sent none
    or one that is too long, so that no caller takes it for the reply of a release without tokens.
    """
    for name, value in incoming:
        if name == headers.REPLY_TOKEN and isinstance(value, bytes):
            return name, value if len(value) <= headers.MAX_REPLY_TOKEN_BYTES else b""
    return headers.REPLY_TOKEN, b""
