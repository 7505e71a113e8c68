"""The pure parts of the event store: places, entries of the index, the fold, differences, timelines."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.audit import EntryKind, aggregate_timeline, conversation
from eventstore.events import (
    Position,
    RecordedEvent,
    StreamId,
    UnknownStream,
    UnreadableEvent,
    recorded,
    unreadable,
)
from eventstore.folding import NOTHING, changes, fold, fold_leniently
from eventstore.index import MAX_PARTITIONS, Entries, IndexKeys, Place, offsets_of, places_of
from eventstore.indexer import Kind, Source, note
from readmodels.scripts import HISTORY
from runtime.records import Headers, IncomingRecord
from runtime.redis import Command
from runtime.redis.line import pack
from runtime.settings import Settings
from schemas import headers
from schemas.parking import Action
from schemas.records import CommandRecord, EventRecord, Outcome, OutcomeStatus, encode
from schemas.rejections import Code
from tests.support import hostile

KEYS = IndexKeys("p", "e")
PLACES = st.builds(
    Place,
    st.integers(0, 511),
    st.integers(0, MAX_PARTITIONS - 1),
    st.integers(0, 2**42 - 1),
)


@given(PLACES)
def test_a_place_is_one_integer_that_redis_can_keep_in_eight_bytes(place: Place) -> None:
    assert Place.unpacked(place.packed()) == place
    assert 0 <= place.packed() < 2**63


@given(st.lists(PLACES))
def test_places_come_in_order_of_topic_partition_and_offset(places: list[Place]) -> None:
    members = [str(place.packed()).encode() for place in places]
    assert places_of(members) == sorted(places)


def test_as_many_partitions_fit_as_the_settings_allow() -> None:
    (limit,) = (m.le for m in Settings.model_fields["partitions"].metadata if hasattr(m, "le"))
    assert limit <= MAX_PARTITIONS


@given(st.lists(st.integers(0, 2**42), min_size=1))
def test_offsets_of_a_stream_are_read_as_they_were_written(offsets: list[int]) -> None:
    entries = Entries(KEYS)
    for version, offset in enumerate(offsets, 1):
        entries.event(Place(3, 1, offset), "o-1", version)
    events = [event for command in entries.commands() for event in placed(command)]
    assert [(key, version) for key, version, *_ in events] == [
        ("p:history-index:e:stream:3:o-1", version) for version in range(1, len(offsets) + 1)
    ]
    assert offsets_of(b"".join(entry.to_bytes(8) for _, _, entry, *_ in events)) == offsets


def placed(command: Command) -> list[tuple[str, int, int, int, str]]:
    """What a call of lua/history.lua is told: stream, version, entry, how many are missing, place."""
    name, sha, count, *rest = command
    assert (name, sha) == ("EVALSHA", HISTORY.sha)
    keys, (_, events) = rest[: int(count)], rest[int(count) :]
    assert isinstance(events, bytes)
    return [(str(keys[at - 1]), *event) for at, *event in msgspec.msgpack.decode(events)]


def test_a_version_that_is_not_indexed_is_no_offset() -> None:
    assert offsets_of(bytes(8) + (1).to_bytes(8)) == [None, 0]


def incoming(
    topic: str, key: str, value: msgspec.Struct, offset: int = 0, **marks: str
) -> IncomingRecord:
    named: Headers = [(name.replace("_", "-"), text.encode()) for name, text in marks.items()]
    at_ms = getattr(value, "occurred_at_ms", 0) or getattr(value, "decided_at_ms", 0)
    return IncomingRecord(topic, 0, offset, at_ms, key.encode(), encode(value), named)


def event(
    version: int, kind: str, at_ms: int = 0, command: str = "c", **data: object
) -> EventRecord:
    return EventRecord(
        type=kind,
        id=f"{command}:0",
        version=version,
        occurred_at_ms=at_ms,
        data=msgspec.Raw(encode(data)),
    )


def outcome(command_id: str, version: int = 0, code: Code | None = None, at_ms: int = 0) -> Outcome:
    status = OutcomeStatus.REJECTED if code else OutcomeStatus.ACCEPTED
    return Outcome(
        command_id=command_id,
        type="ReserveStock",
        aggregate="inventory",
        aggregate_id="A",
        status=status,
        version=version,
        decided_at_ms=at_ms,
        code=code,
        message="why" if code else None,
    )


ASIDE = [
    ("ZADD", "p:history-index:e:aside", Place(5, 0, 7).packed(), Place(5, 0, 7).packed()),
    ("ZREMRANGEBYRANK", "p:history-index:e:aside", 0, -1_001),
]


@pytest.mark.parametrize(
    ("kind", "record", "written"),
    [
        (
            Kind.HISTORY,
            incoming("t", "o-1", event(2, "X"), 7, correlation_id="talk"),
            [
                ("p:history-index:e:stream:5:o-1", 2, 8, 0, str(Place(5, 0, 7).packed())),
                ("SADD", "p:history-index:e:talk:talk", Place(5, 0, 7).packed()),
            ],
        ),
        (
            Kind.OUTCOMES,
            incoming("t", "A/c", outcome("c"), 7),
            [
                ("SADD", "p:history-index:e:recent:c", Place(5, 0, 7).packed()),
                ("PEXPIRE", "p:history-index:e:recent:c", 1_000),
            ],
        ),
        (
            Kind.OUTCOMES,
            incoming(
                "t", "A/c", outcome("c", 3, Code.INSUFFICIENT_STOCK, 9), 7, correlation_id="x"
            ),
            [
                ("ZADD", "p:history-index:e:refused:5:A", 9, Place(5, 0, 7).packed()),
                ("ZREMRANGEBYRANK", "p:history-index:e:refused:5:A", 0, -1_001),
                ("SADD", "p:history-index:e:recent:x", Place(5, 0, 7).packed()),
                ("PEXPIRE", "p:history-index:e:recent:x", 1_000),
                ("PEXPIRE", "p:history-index:e:refused:5:A", 1_000),
            ],
        ),
        (
            Kind.COMMANDS,
            incoming("t", "A", CommandRecord(type="X", command_id="c"), 7),
            [
                ("SADD", "p:history-index:e:recent:c", Place(5, 0, 7).packed()),
                ("PEXPIRE", "p:history-index:e:recent:c", 1_000),
            ],
        ),
        (
            Kind.DEAD_LETTERS,
            IncomingRecord("t", 0, 7, 0, None, b"\xff", [("correlation-id", b"x")]),
            [("SADD", "p:history-index:e:talk:x", Place(5, 0, 7).packed())],
        ),
        (Kind.DEAD_LETTERS, IncomingRecord("t", 0, 7, 0, None, b"\xff", []), []),
        (
            Kind.AUDIT,
            IncomingRecord("t", 0, 7, 0, b"A", b"{}", [("correlation-id", b"x")]),
            [("SADD", "p:history-index:e:talk:x", Place(5, 0, 7).packed())],
        ),
        (Kind.COMMANDS, IncomingRecord("t", 0, 7, 0, b"k", b"no json", []), []),
        (Kind.HISTORY, IncomingRecord("t", 0, 7, 0, b"k", None, []), ASIDE),
        (Kind.HISTORY, incoming("t", "o-1", event(0, "X"), 7), ASIDE),
        (Kind.HISTORY, incoming("t", "o-1", event(9, "X"), 7), ASIDE),
        (Kind.HISTORY, incoming("t", "o/1", event(1, "X"), 7), ASIDE),
        (Kind.HISTORY, IncomingRecord("t", 0, 7, 0, b"k", b'{"version":1}', []), ASIDE),
        (
            Kind.COMMANDS,
            incoming("t", "A", CommandRecord(type="X", command_id="c" * 129), 7),
            [],
        ),
        (
            Kind.DEAD_LETTERS,
            IncomingRecord("t", 0, 7, 0, None, None, [("correlation-id", b"y" * 9_000)]),
            [],
        ),
    ],
)
def test_what_each_record_adds_to_the_index(
    kind: Kind, record: IncomingRecord, written: list[object]
) -> None:
    entries = Entries(KEYS)
    note(entries, Source("t", kind, "inventory", 1_000), 5, record)
    told: list[Any] = []
    for command in entries.commands():
        told += placed(command) if command[0] == "EVALSHA" else [command]
    assert told == written


def inventory(*records: EventRecord) -> list[RecordedEvent]:
    return [recorded("inventory", incoming("h", "A", record)) for record in records]


REGISTERED = event(1, "ItemRegistered", 1, description="mug", low_stock_threshold=0)
RECEIVED = event(2, "StockReceived", 2, quantity=5)
RESERVED = event(3, "StockReserved", 3, reservation_id="o1", quantity=2)
RELEASED = event(4, "ReservationReleased", 4, reservation_id="o1", quantity=2)


def test_the_fold_gives_the_state_after_each_event_and_forgets_closed_parts() -> None:
    events = inventory(REGISTERED, RECEIVED, RESERVED, RELEASED)
    states = [state for _, state in fold("inventory", events)]
    assert [(s.version, s.state.on_hand, s.state.reserved, list(s.parts)) for s in states] == [
        (1, 0, 0, []),
        (2, 5, 0, []),
        (3, 5, 2, ["o1"]),
        (4, 5, 0, []),
    ]


def test_a_gap_in_a_stream_is_an_error() -> None:
    with pytest.raises(UnreadableEvent, match=r"inventory/A, version 3: .*3 follows 1"):
        list(fold("inventory", inventory(REGISTERED, RESERVED)))


def test_changes_name_fields_of_state_and_parts() -> None:
    states = [state for _, state in fold("inventory", inventory(REGISTERED, RECEIVED, RESERVED))]
    first = {change.field: change.after for change in changes(NOTHING, states[0])}
    assert first["description"] == "mug"
    made = {change.field: (change.before, change.after) for change in changes(states[1], states[2])}
    assert made["reserved"] == (0, 2)
    assert made["parts.o1.quantity"] == (None, 2)
    assert "on_hand" not in made
    gone = {change.field: change.after for change in changes(states[2], states[1])}
    assert gone["parts.o1.quantity"] is None
    assert changes(states[1], states[1]) == ()


def test_a_refusal_stands_behind_the_version_it_was_judged_against() -> None:
    states = list(fold("inventory", inventory(REGISTERED, RECEIVED, RESERVED)))
    refused = [incoming("o", "A/c", outcome("c", 2, Code.INSUFFICIENT_STOCK, 2))]
    entries = aggregate_timeline(states, refused)
    assert [(e.kind, e.version) for e in entries] == [
        (EntryKind.EVENT, 1),
        (EntryKind.EVENT, 2),
        (EntryKind.COMMAND, 2),
        (EntryKind.EVENT, 3),
    ]
    assert (entries[2].code, entries[2].message) == ("insufficient_stock", "why")
    early = aggregate_timeline(states[:1], refused, until=(1, 1))
    assert [entry.kind for entry in early] == [EntryKind.EVENT]
    assert len(aggregate_timeline(states[:2], refused, until=(2, 2))) == 3


def source(kind: Kind, aggregate: str) -> Source:
    return Source(f"p.{aggregate}.{kind.name.lower()}", kind, aggregate, 0)


def test_what_was_caused_stands_behind_its_cause_even_within_a_millisecond() -> None:
    reserve = CommandRecord(
        type="ReserveStock", command_id="zz", data=msgspec.Raw(b'{"quantity":1}')
    )
    start = CommandRecord(type="StartSaga", command_id="s")
    records = [
        (
            source(Kind.HISTORY, "inventory"),
            incoming("h", "A", event(1, "X", 0, "zz"), causation_id="zz"),
        ),
        (source(Kind.COMMANDS, "inventory"), incoming("c", "A", reserve, causation_id="s:0")),
        (source(Kind.OUTCOMES, "inventory"), incoming("o", "A/zz", outcome("zz", 1))),
        (
            source(Kind.HISTORY, "saga"),
            incoming("h", "o", event(1, "SagaStarted", 0, "s"), causation_id="s"),
        ),
        (source(Kind.COMMANDS, "saga"), incoming("c", "o", start)),
    ]
    told = conversation(records)
    assert [(e.type, e.status) for e in told] == [
        ("StartSaga", None),
        ("SagaStarted", None),
        ("ReserveStock", "accepted"),
        ("X", None),
    ]
    assert told[2].data == {"quantity": 1}


def test_causes_that_go_in_a_circle_do_not_hang() -> None:
    one = CommandRecord(type="A", command_id="a")
    two = CommandRecord(type="B", command_id="b")
    commands = source(Kind.COMMANDS, "user")
    told = conversation(
        [
            (commands, incoming("c", "u", one, causation_id="b")),
            (commands, incoming("c", "u", two, causation_id="a")),
        ]
    )
    assert {entry.type for entry in told} == {"A", "B"}


def test_an_outcome_whose_command_has_expired_and_a_dead_letter_are_told() -> None:
    letter = IncomingRecord(
        "p.dead-letters",
        0,
        4,
        5,
        b"A",
        b"\xff",
        [
            (headers.ERROR_TOPIC, b"my.shop.inventory.commands"),
            (headers.ERROR_CODE, b"internal_error"),
            (headers.ERROR_MESSAGE, b"boom"),
            (headers.ERROR_STAGE, b"command-processor"),
            (headers.ERROR_TIMESTAMP, b"3"),
        ],
    )
    refused = incoming("o", "A/c", outcome("c", 0, Code.ITEM_NOT_FOUND, 2))
    told = conversation(
        [(source(Kind.DEAD_LETTERS, ""), letter), (source(Kind.OUTCOMES, "inventory"), refused)]
    )
    assert [(e.kind, str(e.stream), e.at_ms, e.code) for e in told] == [
        (EntryKind.COMMAND, "inventory/A", 2, "item_not_found"),
        (EntryKind.DEAD_LETTER, "inventory/A", 3, "internal_error"),
    ]


def test_what_an_operator_did_is_told_behind_what_it_is_about() -> None:
    action = Action(
        action="retry",
        by="ann",
        at_ms=9,
        settled=False,
        result="failed",
        stage="reactor",
        topic="my.shop.saga.history",
        partition=0,
        offset=4,
        before="",
    )
    record = incoming(
        "p.audit", "o-1", action, 2, correlation_id="x", causation_id="dead-letter.0-1"
    )
    (entry,) = conversation([(source(Kind.AUDIT, ""), record)])
    assert (entry.kind, str(entry.stream), entry.type) == (EntryKind.ACTION, "saga/o-1", "retry")
    assert (entry.at_ms, entry.cause, entry.status) == (9, "dead-letter.0-1", "open")
    assert entry.data == {"by": "ann", "result": "failed"}


def test_an_appended_event_shows_what_its_writer_wrote() -> None:
    value = event(1, "Appended", type="CarrierNotified", data={"carrier": "x"})
    shown = recorded("stream", incoming("h", "s", value, 3, causation_id="c", traceparent="t"))
    assert (shown.type, shown.json, shown.offset) == ("CarrierNotified", {"carrier": "x"}, 3)
    assert (shown.command_id, shown.correlation_id, shown.traceparent) == ("c", None, "t")


@pytest.mark.parametrize("text", ["order", "order/", "bill/b", "order/a/b", "order/ ", "/x", ""])
def test_what_is_no_stream_is_refused(text: str) -> None:
    with pytest.raises(UnknownStream):
        StreamId.parse(text)


def test_a_position_survives_as_text() -> None:
    position = Position({"p.order.history:1": 7})
    assert Position.parse(str(position)) == position
    assert (position.at("p.order.history", 1), position.at("p.order.history", 0)) == (7, 0)
    with pytest.raises(ValueError, match="Expected"):
        Position.parse('["x"]')


HISTORY_NAMES = ["type", "id", "version", "occurred_at_ms", "schema_version", "data", "state"]
OTHER_NAMES = ["type", "command_id", "aggregate", "aggregate_id", "status", "code", "decided_at_ms"]


@st.composite
def hostile_records(draw: st.DrawFn) -> IncomingRecord:
    value = draw(hostile.values(HISTORY_NAMES) | hostile.values(OTHER_NAMES))
    key, headers = draw(hostile.KEYS), draw(hostile.HEADERS)
    return IncomingRecord("p.order.history", 0, draw(st.integers(0, 50)), 0, key, value, [*headers])


@given(st.sampled_from(Kind), hostile_records(), st.integers(0, 3))
def test_no_record_stops_the_index_or_makes_it_large(
    kind: Kind, record: IncomingRecord, missing: int
) -> None:
    entries = Entries(KEYS)
    note(entries, Source("t", kind, "order", 1_000), 5, record, missing)
    commands = entries.commands()
    assert len(pack(commands)) < 4_000
    for command in commands:
        for _, version, *_ in placed(command) if command[0] == "EVALSHA" else ():
            assert 1 <= version <= record.offset + 1


@given(st.lists(st.tuples(st.sampled_from(Kind), hostile_records()), max_size=6))
def test_a_conversation_is_told_whatever_its_records_are(
    records: list[tuple[Kind, IncomingRecord]],
) -> None:
    talk = [(Source("t", kind, "order", 0), record) for kind, record in records]
    told = conversation(talk)
    assert len(told) <= len(records)
    encode(told)


@given(st.lists(hostile_records(), max_size=4))
def test_refusals_are_told_whatever_their_records_are(records: list[IncomingRecord]) -> None:
    assert len(aggregate_timeline([], records)) == len(records)


def test_an_outcome_of_a_newer_release_is_told_as_it_is() -> None:
    value = encode(outcome("c", 3, Code.INSUFFICIENT_STOCK))
    newer = value.replace(b'"insufficient_stock"', b'"sold_to_the_moon"')
    record = IncomingRecord("p.inventory.outcomes", 0, 0, 0, b"A/c", newer, [])
    (entry,) = conversation([(Source("t", Kind.OUTCOMES, "inventory", 0), record)])
    assert (entry.code, entry.status, entry.message) == ("sold_to_the_moon", "rejected", "why")


def test_from_an_event_that_cannot_be_read_on_the_state_stays_as_it_was() -> None:
    good, bad, after = inventory(REGISTERED, RECEIVED, event(3, "StockReceived", 3, quantity=1))
    damaged = unreadable(bad.stream, 2, incoming("h", "A", RECEIVED), "damaged")
    states = list(fold_leniently("inventory", [good, damaged, after]))
    assert [state.version for _, state in states] == [1, 1, 1]
    entries = aggregate_timeline(states, [])
    assert [entry.code for entry in entries] == [None, "unreadable", None]
    assert [entry.changes == () for entry in entries] == [False, True, True]
    with pytest.raises(UnreadableEvent, match="damaged"):
        list(fold("inventory", [good, damaged, after]))
