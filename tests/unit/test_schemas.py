"""What goes over the wire: ids, the partitioner, records, topics."""

import random
import string
from collections import Counter

import msgspec
import pytest
from aiokafka import partitioner as aiokafka_partitioner
from pydantic import TypeAdapter, ValidationError

from schemas import limits
from schemas.ids import MAX_ID_LENGTH, Id, is_id, is_part_key, part_key
from schemas.partitioner import murmur2, partition_for
from schemas.records import (
    CommandRecord,
    EventRecord,
    Outcome,
    OutcomeStatus,
    WrittenEvent,
    decode_command,
    decode_event,
    decode_outcome,
    encode,
    with_state,
)
from schemas.rejections import Code
from schemas.topics import AGGREGATES, MAX_RECORD_BYTES, Topics

ID_MODEL: TypeAdapter[str] = TypeAdapter(Id)

GOOD_IDS = ["a", "7", "o-7", "user@example.org", "A.b_c:d+e", "two words", "x" * MAX_ID_LENGTH]
BAD_IDS = [
    *("", " a", "a ", "-a", "_", "a/b", "{a}", "a\n", "a\nb", "a\tb", "a\x00b", "ä", "٣", "a*"),
    "x" * (MAX_ID_LENGTH + 1),
]


@pytest.mark.parametrize("text", GOOD_IDS)
def test_an_id_is_taken_by_the_models_and_by_the_shell(text: str) -> None:
    assert is_id(text)
    assert ID_MODEL.validate_python(text) == text


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_is_no_id_is_refused_by_the_models_and_by_the_shell(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ValidationError):
        ID_MODEL.validate_python(text)


@pytest.mark.parametrize(
    "character", [chr(code) for code in range(256)], ids=lambda char: f"{ord(char):#04x}"
)
def test_models_and_shell_agree_on_every_character(character: str) -> None:
    for text in (character, f"{character}a", f"a{character}", f"a{character}a"):
        try:
            ID_MODEL.validate_python(text)
        except ValidationError:
            assert not is_id(text)
        else:
            assert is_id(text)


def test_the_key_of_a_part_is_told_from_the_key_of_an_aggregate() -> None:
    assert part_key("cup", "o-7") == "cup/o-7"
    assert is_part_key(part_key("cup", "o-7"))
    assert not any(is_part_key(text) for text in GOOD_IDS)


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # from org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafka_gives(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_murmur2_agrees_with_aiokafka_on_keys_of_every_length() -> None:
    randomness = random.Random(7)
    for length in range(140):
        for _ in range(20):
            key = randomness.randbytes(length)
            assert murmur2(key) == aiokafka_partitioner.murmur2(key) & 0xFFFFFFFF


def test_keys_land_on_the_partition_that_aiokafka_chooses() -> None:
    choose = aiokafka_partitioner.DefaultPartitioner()
    for partitions in (1, 4, 7, 1024):
        everywhere = list(range(partitions))
        for number in range(500):
            key = f"order-{number}".encode()
            assert partition_for(key, partitions) == choose(key, everywhere, everywhere)


COMMANDS = [
    CommandRecord(type="ShipOrder", command_id="c-1"),
    CommandRecord(
        type="CancelOrder",
        command_id="c-2",
        data=msgspec.Raw(b'{"reason":"\xc3\xa4"}'),
        schema_version=3,
        expected_version=0,
    ),
]
EVENTS = [
    EventRecord(type="OrderShipped", id="e-1", version=3, occurred_at_ms=17),
    EventRecord(
        type="OrderShipped",
        id="e-1",
        version=3,
        occurred_at_ms=17,
        schema_version=2,
        data=msgspec.Raw(b'{"tracking":null}'),
        state=msgspec.Raw(b'{"status":"shipped"}'),
    ),
]
ACCEPTED = Outcome(
    command_id="c-1",
    type="ShipOrder",
    aggregate="order",
    aggregate_id="o-1",
    status=OutcomeStatus.ACCEPTED,
    version=3,
    decided_at_ms=17,
)
REJECTED = msgspec.structs.replace(
    ACCEPTED,
    status=OutcomeStatus.REJECTED,
    digest="d",
    code=Code.INVALID_TRANSITION,
    message="no",
    field="tracking",
)


@pytest.mark.parametrize("record", COMMANDS)
def test_a_command_record_survives_its_json(record: CommandRecord) -> None:
    again = decode_command(encode(record))
    assert encode(again) == encode(record)
    assert bytes(again.data) == bytes(record.data)
    assert (again.type, again.command_id) == (record.type, record.command_id)
    assert again.schema_version == record.schema_version
    assert again.expected_version == record.expected_version


@pytest.mark.parametrize("record", EVENTS)
def test_an_event_record_survives_its_json(record: EventRecord) -> None:
    again = decode_event(encode(record))
    assert encode(again) == encode(record)
    assert (again.type, again.id, again.version) == (record.type, record.id, record.version)
    assert bytes(again.data) == bytes(record.data)
    assert bytes(again.state) == bytes(record.state)


@pytest.mark.parametrize("outcome", [ACCEPTED, REJECTED])
def test_an_outcome_survives_its_json(outcome: Outcome) -> None:
    assert decode_outcome(encode(outcome)) == outcome
    assert outcome.accepted == (outcome is ACCEPTED)


def test_the_smallest_command_is_a_type_and_an_id() -> None:
    assert encode(COMMANDS[0]) == b'{"type":"ShipOrder","command_id":"c-1"}'
    assert bytes(decode_command(b'{"type":"ShipOrder","command_id":"c-1"}').data) == b"{}"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"type":1,"command_id":"c"}',
        b'{"type":"\xff"}',
    ],
)
def test_what_is_no_command_record_raises_a_decode_error(value: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_command(value)


def test_every_rejection_code_is_its_own_name_in_small_letters() -> None:
    assert all(code.value == code.name.lower() for code in Code)


TOPICS = Topics("shop", partitions=6, reply_partitions=5)
SPECS = {spec.name: spec for spec in TOPICS.specs()}


def test_every_topic_is_specified_once_under_the_prefix() -> None:
    kinds = ("commands", "events", "history", "outcomes", "parked")
    expected = {f"shop.{aggregate}.{kind}" for aggregate in AGGREGATES for kind in kinds}
    expected |= {"shop.replies", "shop.dead-letters", "shop.audit", "shop.webhook-deliveries"}
    assert Counter(spec.name for spec in TOPICS.specs()) == Counter(expected)


def test_topic_names_are_legal_in_kafka() -> None:
    legal = set(string.ascii_letters + string.digits + "._-")
    assert all(set(name) <= legal and len(name) <= 249 for name in SPECS)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_topics_of_an_aggregate_are_co_partitioned(aggregate: str) -> None:
    own = [
        TOPICS.commands(aggregate),
        TOPICS.events(aggregate),
        TOPICS.history(aggregate),
        TOPICS.outcomes(aggregate),
    ]
    assert {SPECS[name].partitions for name in own} == {6}


def test_replies_and_dead_letters_have_partitions_of_their_own() -> None:
    assert SPECS[TOPICS.replies].partitions == 5
    assert SPECS[TOPICS.dead_letters].partitions == 1


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_state_is_compacted_and_history_and_dead_letters_never_expire(aggregate: str) -> None:
    assert SPECS[TOPICS.events(aggregate)].config["cleanup.policy"] == "compact"
    for name in (TOPICS.history(aggregate), TOPICS.dead_letters):
        config = SPECS[name].config
        assert config["cleanup.policy"] == "delete"
        assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")


def test_every_topic_takes_the_largest_record() -> None:
    for name, spec in SPECS.items():
        from_strangers = name.endswith(".commands")
        most = limits.MAX_INCOMING_BYTES if from_strangers else MAX_RECORD_BYTES
        assert spec.config["max.message.bytes"] == str(most)
        assert ("compression.type" in spec.config) == from_strangers


@pytest.mark.parametrize("subject_key", ["", "c2VjcmV0"])
@pytest.mark.parametrize("state_version", [1, 2])
@pytest.mark.parametrize("schema_version", [1, 3])
def test_an_event_encoded_once_and_completed_is_the_whole_record(
    schema_version: int, state_version: int, subject_key: str
) -> None:
    event = Outcome(  # any struct will do, here one with text that JSON has to escape
        command_id="c", type='"\u2028', aggregate="a", aggregate_id="b", status=OutcomeStatus.REJECTED,
        version=1, decided_at_ms=2,
    )  # fmt: skip
    whole = EventRecord(
        type="T", id="c:0", version=7, occurred_at_ms=5, schema_version=schema_version,
        data=msgspec.Raw(encode(event)), state_version=state_version,
        state=msgspec.Raw(encode(event)), subject_key=subject_key,
    )  # fmt: skip
    alone = encode(WrittenEvent("T", "c:0", 7, 5, schema_version, event))
    assert with_state(alone, event, state_version, subject_key) == encode(whole)
