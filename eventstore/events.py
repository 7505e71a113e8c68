"""What the event store speaks of: streams, recorded events, positions; and what can be wrong with them.

Pure. A stream is the history of one aggregate, written ``<aggregate>/<id>``, e.g. ``order/o-1``. Streams of
the aggregate ``stream`` have no decider: anything may be appended to them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import msgspec

from eventstore.keys import NO_KEYS, Keys
from runtime.records import IncomingRecord
from sagas import by_name
from schemas import headers
from schemas.decoding import Int64, decode_json, decoder
from schemas.ids import is_id
from schemas.personal import is_sealed, opened
from schemas.records import decode_event
from schemas.topics import AGGREGATES
from schemas.upcasting import Reader

PLAIN: Final = "stream"
"""The aggregate whose streams have no decider."""

UNREADABLE: Final = "(unreadable)"
"""Instead of the type of a record that cannot be read."""

_SEPARATOR: Final = "/"
_SHOWN_CHARACTERS: Final = 500


class EventStoreError(Exception):
    """What the event store refuses or cannot do; ``code`` is stable."""

    code = "event_store_error"


class UnknownStream(EventStoreError):
    """There is no such kind of stream, or the text names none."""

    code = "unknown_stream"


class StreamNotFound(EventStoreError):
    """Nothing was ever appended to this stream."""

    code = "stream_not_found"


class VersionNotFound(EventStoreError):
    """The stream does not reach as far as was asked for, or had not begun at that time."""

    code = "version_not_found"


class StreamHasDecider(EventStoreError):
    """Events of this stream come from its aggregate's decisions: send it a command.

    Appended past its decider, they could break what it promises (a stock below zero).
    """

    code = "stream_has_decider"


class HistoryIncomplete(EventStoreError):
    """An event that the index knows is not on the topic any more: somebody deleted records of it."""

    code = "history_incomplete"


class IndexIncomplete(EventStoreError):
    """The index misses events: part of it was removed by hand. `orderflow indexer --rebuild` mends it."""

    code = "index_incomplete"


class UnreadableEvent(EventStoreError):
    """A record of a history cannot be read: written by a newer release, damaged, or by somebody else."""

    code = "unreadable_event"


class ConcurrencyConflict(EventStoreError):
    """The stream is not at the version that the writer expected: read it again and decide anew."""

    code = "concurrency_conflict"

    def __init__(self, stream: "StreamId", expected: int, actual: int) -> None:
        super().__init__(
            f"{stream} was expected at version {expected}, but stands at {actual}: somebody else appended"
            " to it. Read it again, decide on what it says now, and append with its new version."
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class AppendRefused(EventStoreError):
    """The append was refused for another reason than its version; the message and ``rejection`` say it."""

    code = "append_refused"

    def __init__(self, stream: "StreamId", rejection: str, message: str) -> None:
        super().__init__(f"{stream}: {message}")
        self.rejection = rejection


class StreamId(msgspec.Struct, frozen=True, order=True):
    """Names one stream: an aggregate (``order``) and an id."""

    aggregate: str
    id: str

    @classmethod
    def parse(cls, text: "str | StreamId") -> "StreamId":
        """From ``<aggregate>/<id>``. Raises UnknownStream."""
        if isinstance(text, StreamId):
            return text.checked()
        aggregate, separator, identity = text.partition(_SEPARATOR)
        if not separator:
            raise UnknownStream(f"{text!r} is no stream: write <aggregate>/<id>, e.g. order/o-1")
        return cls(aggregate, identity).checked()

    def checked(self) -> Self:
        """Itself. Raises UnknownStream for an aggregate that does not exist or a text that is no id."""
        if self.aggregate not in AGGREGATES:
            raise UnknownStream(
                f"there are no streams of {self.aggregate!r}; there are: {', '.join(AGGREGATES)}"
            )
        if not is_id(self.id):
            raise UnknownStream(f"{self.id!r} is not an id that an aggregate can have")
        return self

    def __str__(self) -> str:
        return f"{self.aggregate}{_SEPARATOR}{self.id}"


class NewEvent(msgspec.Struct, frozen=True):
    """An event to append: a type (letters, digits, ``._-``) and a JSON object."""

    type: str
    data: Mapping[str, Any] = {}


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the history. ``data``: its JSON; ``version`` counts from 1.

    ``partition`` and ``offset``: where it stands on its history topic. ``occurred_at_ms``: epoch
    milliseconds, UTC. ``recorded_at_ms``: when it was written, which may be later. ``unreadable``: in a
    timeline, why the event cannot be read; then type and data are unknown.
    """

    stream: StreamId
    version: int
    type: str
    data: msgspec.Raw
    id: str
    occurred_at_ms: int
    recorded_at_ms: int
    command_id: str | None
    correlation_id: str | None
    traceparent: str | None
    partition: int
    offset: int
    unreadable: str | None = None

    @property
    def json(self) -> Any:
        """The data as Python has it. Raises msgspec.DecodeError for what Python cannot hold."""
        return decode_json(self.data)


class _Inside(msgspec.Struct):
    """What an ``Appended`` carries."""

    type: str
    data: msgspec.Raw


_decode_inside: Final = decoder(_Inside)


_readers: Final = {
    (aggregate.name, event.__name__): Reader(event)
    for aggregate in by_name.values()
    for event in aggregate.events
}


def recorded(aggregate: str, record: IncomingRecord, keys: Keys = NO_KEYS) -> RecordedEvent:
    """A record of a history topic; an old event's data is as it would be written today, and what is
    personal in it is in the clear, or ``(forgotten)`` where ``keys`` has no key for it.

    Raises UnreadableEvent for bytes that are no event, for a newer version than is known here, and for a
    seal that is broken.
    """
    try:
        return _recorded(aggregate, record, keys)
    except (msgspec.MsgspecError, ValueError) as error:
        place = f"{record.topic}-{record.partition}@{record.offset}"
        reason = str(error)[:_SHOWN_CHARACTERS]
        raise UnreadableEvent(f"{place} cannot be read: {reason}") from error


def _recorded(aggregate: str, record: IncomingRecord, keys: Keys) -> RecordedEvent:
    event = decode_event(record.value or b"")
    kind = event.type
    stream = StreamId(aggregate, (record.key or b"").decode())
    reader = _readers.get((aggregate, kind))
    data = event.data
    if reader is not None:
        if is_sealed(reader.type, event.schema_version):
            key = keys.key_of(aggregate, stream.id)
            data = msgspec.Raw(opened(reader.type, bytes(data), key, str(stream), event.id))
        data = msgspec.Raw(reader.current(data, event.schema_version))
    if aggregate == PLAIN:
        inside = _decode_inside(data)
        kind, data = inside.type, inside.data
    marks = dict(record.headers)
    return RecordedEvent(
        stream=stream,
        version=event.version,
        type=kind,
        data=data,
        id=event.id,
        occurred_at_ms=event.occurred_at_ms,
        recorded_at_ms=record.own_time_ms,
        command_id=text_of(marks.get(headers.CAUSATION_ID)),
        correlation_id=text_of(marks.get(headers.CORRELATION_ID)),
        traceparent=text_of(marks.get(headers.TRACEPARENT)),
        partition=record.partition,
        offset=record.offset,
    )


def unreadable(
    stream: StreamId, version: int, record: IncomingRecord, reason: str
) -> RecordedEvent:
    """What is known of an event that cannot be read: where it is and when it was written."""
    return RecordedEvent(
        stream=stream,
        version=version,
        type=UNREADABLE,
        data=msgspec.Raw(b"null"),
        id=f"{record.topic}-{record.partition}@{record.offset}",
        occurred_at_ms=record.occurred_at_ms,
        recorded_at_ms=record.own_time_ms,
        command_id=None,
        correlation_id=None,
        traceparent=None,
        partition=record.partition,
        offset=record.offset,
        unreadable=reason,
    )


def text_of(value: str | bytes | None) -> str | None:
    """A header's value as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


_decode_offsets: Final = decoder(dict[str, Int64])


class Position(msgspec.Struct, frozen=True):
    """How far a reader of histories is: ``<topic>:<partition>`` → the next offset to read.

    A partition that is missing is read from its beginning. ``str`` and ``parse`` make it a text that can
    be kept anywhere.
    """

    offsets: Mapping[str, Int64] = {}

    def __str__(self) -> str:
        return msgspec.json.encode(dict(sorted(self.offsets.items()))).decode()

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError."""
        return cls(_decode_offsets(text))

    def at(self, topic: str, partition: int) -> int:
        """The next offset to read there."""
        return self.offsets.get(_place(topic, partition), 0)


BEGINNING: Final = Position()
"""From the first event there ever was."""


def position_of(places: Iterable[tuple[tuple[str, int], int]]) -> Position:
    """From (topic, partition) and next offset."""
    return Position({_place(*place): offset for place, offset in places})


def _place(topic: str, partition: int) -> str:
    return f"{topic}:{partition}"
