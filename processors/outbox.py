"""How a decision is written down: which records go to which topic of one aggregate's partition.

Pure: from values to records. Names and headers are looked up once a partition or once a command,
because this runs three times for every command.
"""

import traceback

import msgspec

from commands.aggregate import Event
from processors.edge import Request
from processors.records import Headers, IncomingRecord, OutgoingRecord
from schemas import headers
from schemas.ids import reply_key
from schemas.records import EventRecord, Outcome, OutcomeStatus, encode
from schemas.rejections import Rejection
from schemas.topics import Topics

STAGE = b"command-processor"


class Occurrence(msgspec.Struct, frozen=True, gc=False):
    """What makes an event this event: its id, the version it leads to, its time, and its headers."""

    event_id: str
    version: int
    ms: int
    marks: Headers


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
        self._dead_letters = topics.dead_letters

    def event(
        self, key: bytes, event: Event, at: Occurrence, state: msgspec.Struct
    ) -> tuple[OutgoingRecord, OutgoingRecord]:
        """The event with the state after it, and the event alone for the history."""
        kind = type(event).__name__
        data = msgspec.Raw(encode(event))
        full = EventRecord(
            type=kind,
            id=at.event_id,
            version=at.version,
            occurred_at_ms=at.ms,
            data=data,
            state=msgspec.Raw(encode(state)),
        )
        bare = EventRecord(
            type=kind, id=at.event_id, version=at.version, occurred_at_ms=at.ms, data=data
        )
        return (
            OutgoingRecord(self._events, self._partition, key, encode(full), at.marks),
            OutgoingRecord(self._history, self._partition, key, encode(bare), at.marks),
        )

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
        partition = _reply_partition(incoming.headers, self._reply_partitions)
        if partition is None:
            return ()
        key = reply_key(self._aggregate, request.aggregate_id, request.command_id)
        return (OutgoingRecord(self._replies, partition, key, outcome, marks),)

    def dead_letter(
        self, incoming: IncomingRecord, rejection: Rejection, bug: Exception | None = None
    ) -> OutgoingRecord:
        """The record as it came, with the cause and the place in headers."""
        marks: Headers = [
            *incoming.headers,
            (headers.ERROR_CODE, rejection.code.encode()),
            (headers.ERROR_MESSAGE, rejection.message.encode()),
            (headers.ERROR_STAGE, STAGE),
            (headers.ERROR_TOPIC, incoming.topic.encode()),
            (headers.ERROR_PARTITION, str(incoming.partition).encode()),
            (headers.ERROR_OFFSET, str(incoming.offset).encode()),
            (headers.ERROR_TIMESTAMP, str(incoming.occurred_at_ms).encode()),
        ]
        if bug is not None:
            trace = "".join(traceback.format_exception(bug))
            marks.append((headers.ERROR_STACKTRACE, trace.encode()))
        return OutgoingRecord(self._dead_letters, 0, incoming.key, incoming.value, marks)

    def outcome_value(
        self, request: Request, rejection: Rejection | None, version: int, at_ms: int
    ) -> bytes:
        """JSON of an outcome: accepted where there is no rejection."""
        refused = rejection is not None
        return encode(
            Outcome(
                command_id=request.command_id,
                type=request.type,
                aggregate=self._aggregate,
                aggregate_id=request.aggregate_id,
                status=OutcomeStatus.REJECTED if refused else OutcomeStatus.ACCEPTED,
                version=version,
                decided_at_ms=at_ms,
                digest=request.digest,
                code=rejection.code if rejection else None,
                message=rejection.message if rejection else None,
                field=rejection.field if rejection else None,
            )
        )


def marks_of(request: Request, incoming: Headers) -> Headers:
    """Headers of all that follows from a command: who asked, and in which conversation and trace."""
    causation = request.command_id.encode()
    correlation: str | bytes | None = causation
    marks: Headers = [(headers.CAUSATION_ID, causation)]
    for name, value in incoming:
        if name == headers.CORRELATION_ID:
            correlation = value
        elif name == headers.TRACEPARENT:
            marks.append((name, value))
    marks.append((headers.CORRELATION_ID, correlation))
    return marks


def _reply_partition(incoming: Headers, partitions: int) -> int | None:
    for name, value in incoming:
        if (
            name == headers.REPLY_PARTITION
            and value
            and value.isdigit()
            and int(value) < partitions
        ):
            return int(value)
    return None
