"""Every record that was ever written can be read: one golden file for each type, version and form."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import StringConstraints

from commands.order import CreateOrder
from orderflow import schema_files
from orderflow.contract import golden
from orderflow.contract.json_schemas import schemas
from orderflow.contract.messages import PARKING, RECORDS, Kind, Message, current, messages
from orderflow.contract.specimens import NOON_MS, NoExample, specimen
from processors.edge import Edge, Request
from readmodels.records import Change, read
from readmodels.views import VIEWS
from sagas import by_name
from schemas import headers
from schemas.parking import (
    Action,
    Parked,
    ParkedNotice,
    decode_action,
    decode_notice,
    decode_parked,
)
from schemas.partitioner import partition_for
from schemas.personal import is_sealed, opened
from schemas.records import EventRecord, decode_event, decode_outcome, encode
from schemas.saga import SagaEnd
from schemas.upcasting import Reader, StateReader
from schemas.webhook import Delivery

ROOT = schema_files.ROOT
FILES = [(path, file) for path, file in golden.goldens(ROOT)]
KNOWN = {message.path: message for message in messages()}
NEWEST = {(message.owner, message.name): message for message in current()}

SCHEMAS = schemas()

READ_AS: dict[str, Any] = {
    "user/UserRegistered.v1.json": {"name": "Ada", "email": "ada@example.org"},
    "user/UserDeactivated.v1.json": {"reason": "out of stock"},
    "user/UserState.v1.json": {
        "status": "active",
        "name": "Ada",
        "email": "ada@example.org",
        "registered_at_ms": NOON_MS,
        "updated_at_ms": NOON_MS,
    },
}
"""Golden file of an older version, below tests/golden -> what it is read as now, as JSON. A new version of
a type adds a row for each file of the versions before it; docs/SCHEMAS.md shows how.
"""

of_every_file = pytest.mark.parametrize(
    ("path", "file"), FILES, ids=[str(file.relative_to(ROOT / golden.FOLDER)) for _, file in FILES]
)


PARKING_READERS: dict[Any, Callable[[bytes], Any]] = {
    ParkedNotice: decode_notice,
    Parked: decode_parked,
    Action: decode_action,
}


def newest(path: str) -> Message | None:
    owner, _, name = path.rpartition(".v")[0].partition("/")
    return NEWEST.get((owner, name))


def read_back(message: Message, value: bytes) -> Any:
    """What the present code reads out of a record, through whoever reads it in a running pipeline."""
    match message.kind:
        case Kind.COMMAND:
            request = Edge(by_name.get(message.owner, by_name["user"]), 4).read(
                b"order-1", value, partition_for(b"order-1", 4)
            )
            assert isinstance(request, Request)
            assert request.rejection is None
            assert type(request.command) is message.type
            return request.command
        case Kind.EVENT:
            event = decode_event(value)
            return Reader(message.type).read(in_the_clear(message, event), event.schema_version)
        case Kind.STATE:
            return StateReader(message.type).read(value)[1]
        case Kind.REPLY if message.type in (SagaEnd, Delivery):
            return Reader(message.type).read(value, 1)
        case Kind.REPLY if message.type in PARKING_READERS:
            return PARKING_READERS[message.type](value)
        case _:
            return decode_outcome(value)


def in_the_clear(message: Message, event: EventRecord) -> bytes:
    if not is_sealed(message.type, event.schema_version):
        return bytes(event.data)
    stream = f"{message.owner}/order-1"
    return opened(message.type, bytes(event.data), golden.SUBJECT_KEY, stream, event.id)


def plain(value: Any) -> Any:
    if hasattr(value, "model_dump_json"):
        return json.loads(value.model_dump_json())
    return json.loads(encode(value))


def test_everything_that_can_be_written_has_its_golden_file() -> None:
    assert not golden.missing(ROOT), "run: python -m orderflow.schema_files"


@of_every_file
def test_a_golden_file_is_read_by_the_present_code_and_nothing_of_it_is_lost(
    path: str, file: Path
) -> None:
    message = newest(path)
    if message is None:
        assert path in (f"{RECORDS}/Tombstone.v1", f"{RECORDS}/DeadLetter.v1"), f"{path} is gone"
        return
    value = file.read_bytes()
    found = read_back(message, value)
    assert type(found) is message.type
    record = json.loads(value)
    part = golden.PAYLOAD.get(message.kind)
    written = record if part is None else record[part]
    if message.kind is Kind.EVENT:
        written = json.loads(in_the_clear(message, decode_event(value)))
    if path == message.path:
        # Fields that were added since have their default; all others are what they were.
        assert plain(found) | written == plain(found)
    else:
        assert plain(found) == READ_AS[str(file.relative_to(ROOT / golden.FOLDER))]


@of_every_file
def test_a_golden_file_fits_the_published_schema(path: str, file: Path) -> None:
    if path not in KNOWN and newest(path):
        return  # of an older version, whose schema is not published any more
    record = json.loads(file.read_text("utf-8"))
    kinds = {Kind.COMMAND: "commands", Kind.EVENT: "history", Kind.REPLY: ""}
    name = path.partition("/")[2].rpartition(".v")[0]
    folder = kinds.get(KNOWN[path].kind, "events") if path in KNOWN else "headers"
    schema = {
        "Outcome": "outcome",
        "SagaEnd": "saga_end",
        "Delivery": "delivery",
        "ParkedNotice": "parking/parked_notice",
        "Parked": "parking/parked",
        "Action": "parking/action",
        "Tombstone": "headers/tombstone",
        "DeadLetter": "headers/dead-letter",
    }.get(name, f"{path.partition('/')[0]}/{folder}/{_event_of(record, name)}")
    checked = record["headers"] if schema.startswith("headers") else record
    jsonschema.validate(checked, SCHEMAS[f"{schema}.json"], jsonschema.Draft202012Validator)


def _event_of(record: dict[str, Any], name: str) -> str:
    """A root's state stands under its event, a part's under its own name."""
    return record["type"] if "state" in record and "data" in record else name


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_views_read_the_golden_states(view: Any) -> None:
    (state,) = (m for m in current() if m.type is view.states.type)
    for path, file in FILES:
        if path.rpartition(".v")[0] == state.path.rpartition(".v")[0]:
            change = read(b"order-1", file.read_bytes(), (), view.states, view.project)
            assert isinstance(change, Change)
            assert change.version == 1


def test_a_dead_letter_and_a_tombstone_carry_the_headers_that_they_always_had() -> None:
    kept = {path: json.loads(file.read_text("utf-8")) for path, file in FILES}
    letter, tombstone = (kept[f"{RECORDS}/{n}.v1"] for n in ("DeadLetter", "Tombstone"))
    assert letter["value"] == "{"
    assert letter["headers"][headers.ERROR_CODE] == "malformed"
    assert letter["headers"][headers.ERROR_OFFSET] == "41"
    (view,) = (view for view in VIEWS if view.name == "stock")
    marks = [(name, text.encode()) for name, text in tombstone["headers"].items()]
    assert read(b"s-1", tombstone["value"], marks, view.states, view.project) == Change(
        "s-1", 1, None
    )


def test_files_are_added_and_never_changed(tmp_path: Path) -> None:
    first = golden.missing(tmp_path)
    schema_files.write(dict(first))
    assert not golden.missing(tmp_path)
    file = tmp_path / golden.FOLDER / "order/OrderCancelled.v1.json"
    older = file.read_text("utf-8").replace('"reason":"out of stock"', '"reason":"late"')
    file.write_text(older, "utf-8")
    again = golden.missing(tmp_path)
    assert [path.name for path in again] == ["OrderCancelled.v1.2.json"]
    schema_files.write(dict(again))
    assert file.read_text("utf-8") == older
    assert not golden.missing(tmp_path)


def test_a_field_that_cannot_be_made_up_asks_for_an_example() -> None:
    (message,) = (m for m in current() if m.name == "CreateOrder")

    class Coded(CreateOrder):
        zone: Annotated[str, StringConstraints(pattern="^[A-F]{2}$")]

    with pytest.raises(NoExample, match=r"`zone`.*EXAMPLES"):
        specimen(replace(message, type=Coded))


def test_each_aggregate_has_its_files() -> None:
    owners = {path.partition("/")[0] for path, _ in FILES}
    assert owners == {*by_name, RECORDS, PARKING}
