"""Golden files: records as they were written, one for each type and version, and for each form of it.

They are written by the code that writes to the topics, of the specimens, and never changed afterwards:
tests read every one of them with the present code. Of a record without a value, or whose headers say
all, the file holds key, value and headers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from commands.aggregate import Command
from orderflow.contract.messages import RECORDS, Kind, Message, current
from orderflow.contract.revisions import message_in, next_revision, revisions
from orderflow.contract.specimens import NOON_MS, specimen
from processors.edge import Request
from processors.judge import failed
from processors.outbox import Occurrence, Outbox, command_record
from runtime.records import Headers, IncomingRecord, OutgoingRecord
from sagas import AGGREGATES
from schemas import headers
from schemas.personal import KEY_BYTES
from schemas.records import Outcome, encode
from schemas.rejections import Code, Rejection
from schemas.topics import PERSONAL, Topics

FOLDER: Final = "tests/golden"
TOPICS: Final = Topics("orderflow", partitions=4)
COMMAND_ID: Final = "web-8c1f"
HEADERS: Final = {
    headers.CAUSATION_ID: COMMAND_ID,
    headers.TRACEPARENT: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    headers.CORRELATION_ID: "checkout-7",
}
"""Of each of them."""

_MARKS: Final[Headers] = [(name, text.encode()) for name, text in HEADERS.items()]
_AT: Final = Occurrence(f"{COMMAND_ID}:0", 1, NOON_MS, _MARKS)
_KEY: Final = b"order-1"

SUBJECT_KEY: Final = bytes(range(KEY_BYTES))
"""With which the personal fields in these files are sealed."""

PAYLOAD: Final = {Kind.COMMAND: "data", Kind.EVENT: "data", Kind.STATE: "state"}
"""Where in its record a message stands; a reply is the record."""


def goldens(root: Path) -> Iterator[tuple[str, Path]]:
    """Path of each message, as ``Message.path``, and its files, oldest first."""
    return revisions(root / FOLDER, ".json")


def message_of(root: Path, file: Path) -> str:
    """The path of the message that a file's name names."""
    return message_in((file.relative_to(root / FOLDER)).as_posix(), ".json")[0]


def missing(root: Path) -> dict[Path, str]:
    """Files to be added: of what is written today and stands in no file of its version yet."""
    known: dict[str, list[Any]] = {}
    for path, file in goldens(root):
        known.setdefault(path, []).append(json.loads(file.read_text(encoding="utf-8")))
    found = {}
    for path, text, part in written():
        wanted = json.loads(text)
        told = [record if part is None else record.get(part) for record in known.get(path, ())]
        if (wanted if part is None else wanted[part]) not in told:
            found[next_revision(root / FOLDER, path, ".json")] = text
    return found


def written() -> Iterator[tuple[str, str, str | None]]:
    """Path of each message, its record as it would be written now, and which part of it is the message's."""
    for message in current():
        if message.kind is not Kind.ENVELOPE:
            yield message.path, _record(message).decode(), PAYLOAD.get(message.kind)
    yield f"{RECORDS}/Tombstone.v1", _with_headers(_tombstone()), None
    yield f"{RECORDS}/DeadLetter.v1", _with_headers(_dead_letter()), None


def _record(message: Message) -> bytes:
    """The value of a record that holds the message's specimen."""
    data = specimen(message)
    if issubclass(message.type, Command):
        command = message.type.model_validate_json(encode(data))
        record = command_record(
            TOPICS, message.owner, "order-1", kind=message.type, command_id=COMMAND_ID,
            data=command.__pydantic_serializer__.to_json(command), marks=_MARKS,
        )  # fmt: skip
        return record.value or b""
    if message.type is Outcome:
        request = Request("order-1", COMMAND_ID, "CreateOrder", "6a1f0c9d3b5e7788")
        rejection = Rejection(
            Code.INVALID_DATA, "Input should be greater than 0", "lines.0.quantity"
        )
        return _outbox("order").outcome_value(request, rejection, 0, NOON_MS)
    value: Any = msgspec.json.decode(encode(data), type=message.type)
    if message.kind is Kind.REPLY:
        return encode(value)
    if message.kind is Kind.EVENT:
        return _outbox(message.owner).event(_KEY, value, _at(message.owner), value)[1].value or b""
    return _state_record(message, value)


def _state_record(message: Message, state: msgspec.Struct) -> bytes:
    (aggregate,) = (a for a in AGGREGATES if a.name == message.owner)
    (first,) = (m for m in current() if m.type is aggregate.events[0])
    event: Any = msgspec.json.decode(encode(specimen(first)), type=first.type)
    outbox = _outbox(message.owner)
    if message.type is aggregate.part_type:
        return outbox.part(_KEY, event, _AT, state).value or b""
    return outbox.event(_KEY, event, _at(message.owner), state)[0].value or b""


def _at(owner: str) -> Occurrence:
    subject_key = SUBJECT_KEY if owner in PERSONAL else None
    return msgspec.structs.replace(_AT, subject_key=subject_key)


def _tombstone() -> OutgoingRecord:
    (event,) = (m for m in current() if m.name == "ReservationReleased")
    value: Any = msgspec.json.decode(encode(specimen(event)), type=event.type)
    return _outbox("inventory").part(b"TEAPOT/order-1", value, _AT, None)


def _dead_letter() -> OutgoingRecord:
    came = IncomingRecord(
        TOPICS.commands("order"),
        2,
        41,
        NOON_MS,
        _KEY,
        b"{",
        [(headers.CORRELATION_ID, b"checkout-7")],
    )
    rejection = Rejection(Code.MALFORMED, "not a command: Input data was truncated")
    return _outbox("order").dead_letter(came, failed(rejection))


def _outbox(owner: str) -> Outbox:
    return Outbox(owner, TOPICS, 0)


def _with_headers(record: OutgoingRecord) -> str:
    marks = {n: v.decode() if isinstance(v, bytes) else v for n, v in record.headers}
    texts = [None if text is None else text.decode() for text in (record.key, record.value)]
    whole = {"key": texts[0], "value": texts[1], "headers": marks}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
