"""Personal data in events: sealed and opened, forgotten, and the same bytes for the same input."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import AGGREGATES, TableError, check_table
from commands.aggregate import Aggregate
from orderflow.memory_pipeline import TOPICS, MemoryPipeline
from processors.decider import Decider
from processors.memory import MemoryState
from processors.state_store import ERASING
from runtime.client import OutgoingCommand
from runtime.records import IncomingRecord, OutgoingRecord
from sagas import by_name
from schemas.headers import ANSWER_TO
from schemas.personal import (
    FORGOTTEN,
    KEY_BYTES,
    Personal,
    SealBroken,
    forgets,
    key_bytes,
    key_in,
    key_text,
    new_key,
    opened,
    personal_fields,
    sealed,
    withheld,
)
from schemas.records import CommandRecord, decode_event, decode_outcome, encode
from schemas.rejections import Code
from schemas.topics import PERSONAL
from schemas.user import UserDeactivated, UserForgotten, UserRegistered, UserState, UserStatus

KEY = bytes(range(KEY_BYTES))
STREAM = "user/u-1"
ADA = UserRegistered("Ada Lovelace", "ada@example.org")

texts = st.text(max_size=300)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda k: k[:32] != k[32:])


@given(texts, st.none() | texts, keys, texts)
def test_what_is_sealed_opens_with_its_key_and_is_the_same_each_time(
    name: str, email: str | None, key: bytes, event_id: str
) -> None:
    event = UserRegistered(name, email)
    closed = sealed(event, key, STREAM, event_id)
    assert closed == sealed(event, key, STREAM, event_id)
    clear = opened(UserRegistered, closed, key, STREAM, event_id)
    assert msgspec.json.decode(clear, type=UserRegistered) == event


@given(st.text(min_size=4), keys)
def test_nothing_of_it_stands_in_the_sealed_bytes(name: str, key: bytes) -> None:
    closed = sealed(UserDeactivated(name), key, STREAM, "c:0")
    assert encode(name)[1:-1] not in closed
    assert name.encode("utf-8", "replace") not in closed


@pytest.mark.parametrize(
    ("key", "stream", "event_id"),
    [
        (KEY[::-1], STREAM, "c:0"),
        (KEY, "user/u-2", "c:0"),
        (KEY, STREAM, "c:1"),
    ],
    ids=["another key", "another user", "another event"],
)
def test_it_opens_with_its_own_key_in_its_own_place_only(
    key: bytes, stream: str, event_id: str
) -> None:
    closed = sealed(ADA, KEY, STREAM, "c:0")
    with pytest.raises(SealBroken):
        opened(UserRegistered, closed, key, stream, event_id)


def test_a_value_that_was_moved_to_another_field_does_not_open() -> None:
    data = msgspec.json.decode(sealed(ADA, KEY, STREAM, "c:0"))
    swapped = encode({"name": data["email"], "email": data["name"]})
    with pytest.raises(SealBroken):
        opened(UserRegistered, swapped, KEY, STREAM, "c:0")


@pytest.mark.parametrize("value", ["", "Ada", "aes-siv:", "aes-siv:!", "aes-siv:AAAA", 7, ["x"]])
def test_what_was_never_sealed_is_not_taken_for_a_name(value: Any) -> None:
    with pytest.raises(SealBroken):
        opened(UserDeactivated, encode({"reason": value}), KEY, STREAM, "c:0")


def test_without_its_key_there_is_a_fixed_word_instead_and_what_was_absent_stays_absent() -> None:
    closed = sealed(UserRegistered("Ada"), KEY, STREAM, "c:0")
    clear = msgspec.json.decode(opened(UserRegistered, closed, None, STREAM, "c:0"))
    assert clear == {"name": FORGOTTEN, "email": None}


def test_a_saga_is_told_that_something_happened_and_nothing_personal() -> None:
    assert withheld(ADA) == {"name": "(personal)", "email": "(personal)"}
    assert withheld(UserRegistered("Ada")) == {"name": "(personal)", "email": None}


@given(keys)
def test_a_key_comes_back_out_of_its_text(key: bytes) -> None:
    assert key_bytes(key_text(key)) == key


def test_keys_are_random() -> None:
    assert len({new_key("u-1") for _ in range(100)}) == 100


def test_the_personal_fields_are_those_that_are_declared_so() -> None:
    found = {e.__name__: personal_fields(e) for a in AGGREGATES for e in a.events}
    assert {kind: fields for kind, fields in found.items() if fields} == {
        "UserRegistered": ("name", "email"),
        "UserDeactivated": ("reason",),
    }


def test_only_text_can_be_personal() -> None:
    class Born(msgspec.Struct):
        year: Personal | int

    with pytest.raises(TypeError, match="only text"):
        personal_fields(Born)


def test_an_aggregate_with_personal_data_has_its_topic_erased_in_time() -> None:
    user, item, *others = AGGREGATES
    told = Aggregate(
        item.name, item.commands, (UserRegistered,), item.root_type, item.decide, item.evolve
    )
    with pytest.raises(TableError, match="inventory: events have personal fields"):
        check_table((user, told, *others))
    assert {a.name for a in AGGREGATES if any(map(personal_fields, a.events))} == PERSONAL


# Through the decider.


def command(kind: str, command_id: str, user_id: str = "u-1", **data: object) -> IncomingRecord:
    value = encode(CommandRecord(type=kind, command_id=command_id, data=msgspec.Raw(encode(data))))
    return IncomingRecord("p.user.commands", 0, 0, 17, user_id.encode(), value, [])


def decider(store: MemoryState, **more: Any) -> Decider:
    return Decider(by_name["user"], TOPICS, 0, store, **more)


def commit(user: Decider, *commands: IncomingRecord) -> list[OutgoingRecord]:
    records = [record for each in commands for record in user.decide(each)]
    user.seal()
    user.committed(1, 1, None)
    return records


def on(topic: str, records: list[OutgoingRecord]) -> list[bytes]:
    return [record.value or b"" for record in records if record.topic == topic]


REGISTER = command("RegisterUser", "c-1", name="Ada Lovelace", email="ada@example.org")
DEACTIVATE = command("DeactivateUser", "c-2", reason="moved to Turin")
FORGET = command("ForgetUser", "c-3", by="ann")


def test_the_history_is_sealed_and_the_compacted_record_has_the_state_and_the_key() -> None:
    records = commit(decider(MemoryState()), REGISTER, DEACTIVATE)
    history = on(TOPICS.history("user"), records)
    events = on(TOPICS.events("user"), records)
    assert all(b"Ada" not in v and b"example" not in v and b"Turin" not in v for v in history)
    assert all(b"subject_key" not in v for v in history)
    (first, second) = (key_in(value) for value in events)
    assert first == second is not None
    clear = opened(UserDeactivated, bytes(decode_event(history[1]).data), first, STREAM, "c-2:0")
    assert msgspec.json.decode(clear) == {"reason": "moved to Turin"}
    state = msgspec.json.decode(decode_event(events[1]).state, type=UserState)
    assert state.name == "Ada Lovelace"


def test_the_key_is_found_again_by_a_processor_that_knows_what_is_committed() -> None:
    store = MemoryState()
    (first,) = on(TOPICS.events("user"), commit(decider(store), REGISTER))
    (second,) = on(TOPICS.events("user"), commit(decider(store), DEACTIVATE))
    assert key_in(first) == key_in(second) is not None


def test_who_is_forgotten_has_no_key_and_no_name_in_the_newest_record() -> None:
    store = MemoryState()
    records = commit(decider(store), REGISTER, DEACTIVATE, FORGET)
    newest = on(TOPICS.events("user"), records)[-1]
    assert store.states.get(b"u-1") == newest
    assert newest.startswith(ERASING)
    assert key_in(newest) is None
    assert b"Ada" not in newest
    state = msgspec.json.decode(decode_event(newest).state, type=UserState)
    assert state == UserState(UserStatus.FORGOTTEN, "", None, 17, 17)


def test_only_what_forgets_is_erased_from_the_disk() -> None:
    records = commit(decider(MemoryState()), REGISTER, DEACTIVATE)
    assert not any(v.startswith(ERASING) for v in on(TOPICS.events("user"), records))
    assert [e for a in AGGREGATES for e in a.events if forgets(e)] == [UserForgotten]


def test_deciding_again_with_the_same_key_gives_the_same_bytes() -> None:
    runs = [
        commit(decider(MemoryState(), new_key=lambda _: KEY), REGISTER, DEACTIVATE, FORGET)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_what_was_discarded_leaves_no_key_behind() -> None:
    store = MemoryState()
    user = decider(store)
    (lost,) = on(TOPICS.events("user"), user.decide(REGISTER))
    user.discard()
    (kept,) = on(TOPICS.events("user"), commit(user, REGISTER))
    assert key_in(kept) != key_in(lost)
    (next_one,) = on(TOPICS.events("user"), commit(user, DEACTIVATE))
    assert key_in(next_one) == key_in(kept)


def test_a_user_of_an_older_release_gets_a_key_with_the_next_event() -> None:
    store = MemoryState()
    old = (
        b'{"type":"UserRegistered","id":"c-0:0","version":1,"occurred_at_ms":5,"data":{"name":"Ada"},'
        b'"state":{"status":"active","name":"Ada","email":null,"registered_at_ms":5,'
        b'"updated_at_ms":5}}'
    )
    store.states.write({b"u-1": old}, 1)
    (newest,) = on(TOPICS.events("user"), commit(decider(store), DEACTIVATE))
    assert key_in(newest)
    (gone,) = on(TOPICS.events("user"), commit(decider(store), FORGET))
    assert b"Ada" not in gone


def test_outcomes_say_nothing_personal() -> None:
    again = command("RegisterUser", "c-9", name="Eve Lovelace")
    broken = command("RegisterUser", "c-8", name="Eve Lovelace", email="eve at example")
    records = commit(decider(MemoryState()), REGISTER, again, broken, FORGET)
    told = b"".join(on(TOPICS.outcomes("user"), records))
    assert b"Lovelace" not in told
    assert b"example" not in told


def test_a_saga_that_registers_a_user_gets_an_answer_without_anything_personal() -> None:
    asked = msgspec.structs.replace(REGISTER, headers=[(ANSWER_TO, b"s-1/A")])
    (answer,) = on(TOPICS.commands("saga"), commit(decider(MemoryState()), asked))
    assert b"UserRegistered" in answer
    assert b"Lovelace" not in answer
    assert b"example" not in answer


def test_after_being_forgotten_everything_is_refused_but_being_forgotten_again() -> None:
    kinds: list[tuple[str, dict[str, object]]] = [
        ("RegisterUser", {"name": "Ada"}),
        ("DeactivateUser", {"reason": "x"}),
        ("ValidateUser", {}),
    ]
    user = decider(MemoryState())
    commit(user, REGISTER, FORGET)
    for number, (kind, data) in enumerate(kinds):
        records = commit(user, command(kind, f"late-{number}", "u-1", **data))
        (outcome,) = map(decode_outcome, on(TOPICS.outcomes("user"), records))
        assert outcome.code is Code.USER_FORGOTTEN
    records = commit(user, command("ForgetUser", "again", by="bob", reason="retention"))
    (outcome,) = map(decode_outcome, on(TOPICS.outcomes("user"), records))
    assert outcome.accepted
    assert not on(TOPICS.history("user"), records)


def test_the_pipeline_in_memory_gives_the_same_bytes_each_time() -> None:
    logs = []
    for _ in range(2):
        pipeline = MemoryPipeline(now_ms=1)
        data = encode({"name": "Ada Lovelace"})
        pipeline.send(OutgoingCommand("user", "u-1", "RegisterUser", data, "c-1"))
        pipeline.settle()
        logs.append(pipeline.log)
    assert logs[0] == logs[1]
