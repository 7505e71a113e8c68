"""Who asked what, why it was refused, and what followed: timelines from the records of several topics.

Pure: records in, entries out. Of one aggregate: its events, and the commands it refused. Of a conversation (a
correlation id), over all aggregates: its commands with their outcomes, events, dead letters and what
operators did about these.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec

from eventstore.events import (
    UNREADABLE,
    RecordedEvent,
    StreamId,
    UnreadableEvent,
    recorded,
    text_of,
)
from eventstore.folding import NOTHING, Change, StateAt, changes
from eventstore.indexer import Kind, Source
from eventstore.keys import NO_KEYS, Keys
from runtime.records import IncomingRecord
from schemas import headers
from schemas.decoding import Int64, decode_json, decoder, whole_number
from schemas.ids import PART_SEPARATOR
from schemas.parking import decode_action
from schemas.personal import FORGOTTEN
from schemas.records import decode_command
from schemas.topics import PERSONAL

UNREADABLE_CODE: Final = "unreadable"
"""Code of an entry whose record cannot be read; its message says why."""

_SHOWN_CHARACTERS: Final = 2_000
"""Of a key, a header or a reason; what is ours is shorter."""


class EntryKind(StrEnum):
    """What an entry of a timeline tells of."""

    COMMAND = "command"
    EVENT = "event"
    DEAD_LETTER = "dead_letter"
    ACTION = "action"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a timeline. Times are epoch milliseconds, UTC.

    ``id``: the command's or the event's. ``cause``: the id of what directly caused it; None for what somebody
    outside asked. ``version``: of an event, its own; of a command, where the aggregate stood after it.
    ``status``, ``code``, ``message``: how a command ended, as far as its outcome is still kept. Of what an
    operator did, ``data`` has who, why and with what result; ``status`` is "settled" or "open".
    """

    kind: EntryKind
    at_ms: int
    stream: StreamId
    type: str
    id: str
    cause: str | None
    correlation_id: str | None
    version: int | None = None
    data: Any = None
    status: str | None = None
    code: str | None = None
    message: str | None = None
    changes: tuple[Change, ...] = ()


class _Ended(msgspec.Struct):
    """An outcome as it is shown: with a status or a code of a newer release, too."""

    command_id: str
    type: str
    aggregate: str
    aggregate_id: str
    status: str
    version: Int64
    decided_at_ms: Int64
    code: str | None = None
    message: str | None = None


_decode_ended: Final = decoder(_Ended)


def of_event(event: RecordedEvent, change: tuple[Change, ...] = ()) -> Entry:
    """An event."""
    data, reason = None, event.unreadable
    if reason is None:
        try:
            data = event.json
        except msgspec.DecodeError as error:
            reason = str(error)
    return Entry(
        kind=EntryKind.EVENT,
        at_ms=event.occurred_at_ms,
        stream=event.stream,
        type=event.type,
        id=event.id,
        cause=event.command_id,
        correlation_id=event.correlation_id,
        version=event.version,
        data=data,
        code=None if reason is None else UNREADABLE_CODE,
        message=reason,
        changes=change,
    )


def of_outcome(record: IncomingRecord) -> Entry:
    """A command of which only the outcome is looked at. Raises msgspec.DecodeError."""
    outcome = _decode_ended(record.value or b"")
    return Entry(
        kind=EntryKind.COMMAND,
        at_ms=outcome.decided_at_ms,
        stream=StreamId(outcome.aggregate, outcome.aggregate_id),
        type=outcome.type,
        id=outcome.command_id,
        cause=None,
        correlation_id=_header(record, headers.CORRELATION_ID),
        **_ending(outcome),
    )


def of_command(
    aggregate: str, record: IncomingRecord, outcome: IncomingRecord | None, keys: Keys = NO_KEYS
) -> Entry:
    """A command, with its outcome where that is known.

    What was asked of an aggregate with personal data is shown as long as that has a key. Raises
    msgspec.DecodeError.
    """
    ending = _ending(_decode_ended(outcome.value or b"")) if outcome else {}
    command = decode_command(record.value or b"")
    aggregate_id = (text_of(record.key) or "")[:_SHOWN_CHARACTERS]
    hidden = aggregate in PERSONAL and keys.key_of(aggregate, aggregate_id) is None
    return Entry(
        kind=EntryKind.COMMAND,
        at_ms=record.occurred_at_ms,
        stream=StreamId(aggregate, aggregate_id),
        type=command.type,
        id=command.command_id,
        cause=_header(record, headers.CAUSATION_ID),
        correlation_id=_header(record, headers.CORRELATION_ID) or command.command_id,
        data=FORGOTTEN if hidden else decode_json(command.data),
        **ending,
    )


def of_dead_letter(record: IncomingRecord) -> Entry:
    """What could not be handled, and why."""
    at_ms = whole_number(_header(record, headers.ERROR_TIMESTAMP))
    return Entry(
        kind=EntryKind.DEAD_LETTER,
        at_ms=at_ms if at_ms is not None else record.occurred_at_ms,
        stream=_stream(_header(record, headers.ERROR_TOPIC) or "", record.key),
        type=_header(record, headers.ERROR_STAGE) or "",
        id=f"{record.topic}-{record.partition}@{record.offset}",
        cause=_header(record, headers.CAUSATION_ID),
        correlation_id=_header(record, headers.CORRELATION_ID),
        code=_header(record, headers.ERROR_CODE),
        message=_header(record, headers.ERROR_MESSAGE),
    )


def of_action(record: IncomingRecord) -> Entry:
    """What an operator did about what could not be handled. Raises msgspec.DecodeError."""
    action = decode_action(record.value or b"")
    said = {"by": action.by, "result": action.result, "note": action.note}
    return Entry(
        kind=EntryKind.ACTION,
        at_ms=action.at_ms,
        stream=_stream(action.topic, record.key),
        type=action.action,
        id=f"{record.topic}-{record.partition}@{record.offset}",
        cause=_header(record, headers.CAUSATION_ID),
        correlation_id=_header(record, headers.CORRELATION_ID),
        data={name: text for name, text in said.items() if text},
        status="settled" if action.settled else "open",
    )


def of_unreadable(kind: EntryKind, record: IncomingRecord, reason: Exception) -> Entry:
    """A record of a conversation that cannot be read."""
    return Entry(
        kind=kind,
        at_ms=record.occurred_at_ms,
        stream=_stream(record.topic, record.key),
        type=UNREADABLE,
        id=f"{record.topic}-{record.partition}@{record.offset}",
        cause=_header(record, headers.CAUSATION_ID),
        correlation_id=_header(record, headers.CORRELATION_ID),
        code=UNREADABLE_CODE,
        message=str(reason)[:_SHOWN_CHARACTERS],
    )


def _stream(topic: str, key: bytes | None) -> StreamId:
    """The aggregate of a record of one of its topics; of another topic, that is its name."""
    aggregate = topic.split(".")[-2] if topic.count(".") >= 2 else topic
    shown = (text_of(key) or "")[:_SHOWN_CHARACTERS]
    return StreamId(aggregate, shown.partition(PART_SEPARATOR)[0])


def aggregate_timeline(
    states: Iterable[tuple[RecordedEvent, StateAt]],
    refused: Iterable[IncomingRecord],
    until: tuple[int, int] | None = None,
) -> tuple[Entry, ...]:
    """Events with what each changed, and among them the commands that were refused at that version.

    ``until``: version and time (epoch ms) of the last event; what was refused later is left out.
    """
    before = NOTHING
    entries = []
    for event, after in states:
        entries.append(of_event(event, changes(before, after)))
        before = after
    for record in refused:
        entry = _shown(EntryKind.COMMAND, record, of_outcome)
        if until is None or (entry.version or 0) < until[0] or entry.at_ms <= until[1]:
            entries.append(entry)
    # A refusal stands behind the version that it was judged against.
    return tuple(
        sorted(entries, key=lambda e: (e.version or 0, e.kind is EntryKind.COMMAND, e.at_ms))
    )


def conversation(
    records: Iterable[tuple[Source, IncomingRecord]], keys: Keys = NO_KEYS
) -> tuple[Entry, ...]:
    """All of a conversation in order of time, and what was caused behind what caused it."""
    by_kind: dict[Kind, list[tuple[str, IncomingRecord]]] = defaultdict(list)
    for source, record in records:
        by_kind[source.kind].append((source.aggregate, record))
    entries: list[Entry] = []
    outcomes: dict[tuple[str, str], IncomingRecord] = {}
    for aggregate, record in by_kind[Kind.OUTCOMES]:
        try:
            outcomes[aggregate, _decode_ended(record.value or b"").command_id] = record
        except msgspec.DecodeError as reason:
            entries.append(of_unreadable(EntryKind.COMMAND, record, reason))
    for aggregate, record in by_kind[Kind.HISTORY]:
        try:
            entries.append(of_event(recorded(aggregate, record, keys)))
        except UnreadableEvent as reason:
            entries.append(of_unreadable(EntryKind.EVENT, record, reason))
    entries += [of_dead_letter(record) for _, record in by_kind[Kind.DEAD_LETTERS]]
    entries += [_shown(EntryKind.ACTION, r, of_action) for _, r in by_kind[Kind.AUDIT]]
    for aggregate, record in by_kind[Kind.COMMANDS]:
        try:
            command_id = decode_command(record.value or b"").command_id
            outcome = outcomes.pop((aggregate, command_id), None)
            entries.append(of_command(aggregate, record, outcome, keys))
        except msgspec.DecodeError as reason:
            entries.append(of_unreadable(EntryKind.COMMAND, record, reason))
    entries += [of_outcome(record) for record in outcomes.values()]
    depth = _depths(entries)
    return tuple(sorted(entries, key=lambda e: (e.at_ms, depth[e.id], e.stream, e.version or 0)))


def _depths(entries: Iterable[Entry]) -> dict[str, int]:
    """Id → how many causes lie before it, as far as they are in here."""
    cause_of = {entry.id: entry.cause for entry in entries}
    depths: dict[str, int] = {}
    for identity in cause_of:
        chain: dict[str, None] = {}
        at = identity
        while at in cause_of and at not in depths and at not in chain:
            chain[at] = None
            at = cause_of[at] or ""
        depth = depths.get(at, -1)
        for link in reversed(list(chain)):
            depth += 1
            depths[link] = depth
    return depths


def _shown(
    kind: EntryKind, record: IncomingRecord, entry_of: Callable[[IncomingRecord], Entry]
) -> Entry:
    try:
        return entry_of(record)
    except msgspec.DecodeError as reason:
        return of_unreadable(kind, record, reason)


def _ending(outcome: _Ended) -> dict[str, Any]:
    return {
        "version": outcome.version,
        "status": outcome.status,
        "code": outcome.code,
        "message": outcome.message,
    }


def _header(record: IncomingRecord, name: str) -> str | None:
    for mark, value in record.headers:
        if mark == name:
            text = text_of(value)
            return None if text is None else text[:_SHOWN_CHARACTERS]
    return None
