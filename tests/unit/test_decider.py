"""Deciding one partition, on a real store: what is written, what is remembered, what a bug does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import by_name
from commands.aggregate import Aggregate
from processors.decider import Decider
from processors.state_store import PartitionState
from runtime.records import IncomingRecord, OutgoingRecord
from schemas import headers
from schemas.records import Outcome, decode_event, decode_outcome
from schemas.rejections import Code
from schemas.topics import Topics

TOPICS = Topics("t", partitions=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionState]:
    found = PartitionState(tmp_path, "events-id", "outcomes-id", "parked-id")
    yield found
    found.close()


def incoming(key: str, value: str, *marks: tuple[str, bytes]) -> IncomingRecord:
    return IncomingRecord("t.user.commands", 0, 7, 1000, key.encode(), value.encode(), list(marks))


def register(command_id: str) -> str:
    return f'{{"type":"RegisterUser","command_id":"{command_id}","data":{{"name":"Ada"}}}}'


def decider(store: PartitionState, aggregate: Aggregate = by_name["user"]) -> Decider:
    return Decider(aggregate, TOPICS, 0, store)


def outcome_in(records: list[OutgoingRecord]) -> Outcome:
    (record,) = [r for r in records if r.topic.endswith(".outcomes")]
    return decode_outcome(record.value or b"")


def test_a_command_writes_event_history_and_outcome_and_nothing_else(store: PartitionState) -> None:
    records = decider(store).decide(incoming("ada", register("c1")))
    assert [r.topic for r in records] == ["t.user.events", "t.user.history", "t.user.outcomes"]
    event, history = (decode_event(r.value or b"") for r in records[:2])
    assert (event.id, event.version, event.occurred_at_ms) == ("c1:0", 1, 1000)
    assert event.state
    assert not history.state
    assert event.data == history.data


def test_what_was_decided_before_in_the_same_transaction_counts(store: PartitionState) -> None:
    one = decider(store)
    one.decide(incoming("ada", register("c1")))
    again = outcome_in(one.decide(incoming("ada", register("c2"))))
    assert again.code is Code.USER_ALREADY_REGISTERED
    assert again.version == 1


def test_what_a_failed_transaction_decided_is_forgotten(store: PartitionState) -> None:
    one = decider(store)
    one.decide(incoming("ada", register("c1")))
    one.discard()
    assert outcome_in(one.decide(incoming("ada", register("c2")))).accepted
    assert store.states.get(b"ada") is None


def test_what_is_being_committed_counts_for_what_is_decided_meanwhile(
    store: PartitionState,
) -> None:
    one = decider(store)
    one.decide(incoming("ada", register("c1")))
    one.seal()
    assert outcome_in(one.decide(incoming("ada", register("c2")))).version == 1
    assert one.decide(incoming("ada", register("c1"))) == []  # the same command again: nobody waits
    one.committed(5, 9, None)
    assert store.inbox.get(b"ada/c1") is not None
    assert store.inbox.get(b"ada/c2") is None
    one.seal()
    one.committed(None, 11, None)
    assert store.inbox.get(b"ada/c2") is not None


def test_when_a_commit_fails_what_was_decided_on_top_of_it_is_forgotten_too(
    store: PartitionState,
) -> None:
    one = decider(store)
    one.decide(incoming("ada", register("c1")))
    one.seal()
    one.decide(incoming("ada", register("c2")))
    one.discard()
    again = outcome_in(one.decide(incoming("ada", register("c2"))))
    assert (again.accepted, again.version) == (True, 1)


def test_what_was_committed_is_known_to_the_next_process(store: PartitionState) -> None:
    one = decider(store)
    first = one.decide(incoming("ada", register("c1"), (headers.REPLY_PARTITION, b"3")))
    one.seal()
    one.committed(5, 9, None)
    assert (store.states.next_offset, store.inbox.next_offset) == (5, 9)
    again = decider(store).decide(incoming("ada", register("c1"), (headers.REPLY_PARTITION, b"4")))
    assert [(r.topic, r.partition) for r in again] == [("t.replies", 4)]
    assert again[0].value == first[-1].value


def test_what_a_handlers_bug_has_parked_is_known_to_the_next_process(store: PartitionState) -> None:
    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("a bug")

    one = decider(store, replace(by_name["user"], decide=broken))
    letter, parked = one.decide(incoming("ada", register("c1")))
    assert (letter.topic, parked.topic) == ("t.dead-letters", "t.user.parked")
    one.seal()
    one.committed(None, None, 2)
    assert store.parked.next_offset == 2
    another = decider(store)
    another.ready()
    (waits,) = another.decide(msgspec.structs.replace(incoming("ada", register("c2")), offset=8))
    assert waits.topic == "t.user.parked"
    assert outcome_in(another.decide(incoming("bob", register("c3")))).accepted


def test_a_state_that_cannot_be_read_parks_the_command_and_stops_nobody(
    store: PartitionState,
) -> None:
    store.states.write({b"ada": b"no event"}, 1)
    one = decider(store)
    letter, _ = one.decide(incoming("ada", register("c1")))
    assert letter.topic == "t.dead-letters"
    assert outcome_in(one.decide(incoming("bob", register("c2")))).accepted


def test_what_is_parked_in_a_failed_transaction_is_forgotten(store: PartitionState) -> None:
    store.states.write({b"ada": b"no event"}, 1)
    one = decider(store)
    one.decide(incoming("ada", register("c1")))
    one.discard()
    one.ready()
    letter, parked = one.decide(incoming("ada", register("c1")))
    assert (letter.topic, parked.topic) == ("t.dead-letters", "t.user.parked")


@pytest.mark.parametrize("partition", [b"16", b"-1", b"x", b""])
def test_a_reply_partition_that_does_not_exist_is_ignored(
    store: PartitionState, partition: bytes
) -> None:
    records = decider(store).decide(
        incoming("ada", register("c1"), (headers.REPLY_PARTITION, partition))
    )
    assert not [r for r in records if r.topic == "t.replies"]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.none(), st.binary(max_size=60)), st.one_of(st.none(), st.binary(max_size=200)))
def test_whatever_bytes_come_in_are_answered_or_kept(
    tmp_path_factory: pytest.TempPathFactory, key: bytes | None, value: bytes | None
) -> None:
    store = PartitionState(tmp_path_factory.mktemp("any"), "events-id", "outcomes-id", "parked-id")
    try:
        records = decider(store).decide(IncomingRecord("t", 0, 0, 0, key, value, []))
    finally:
        store.close()
    (record,) = records
    assert record.topic in {"t.dead-letters", "t.user.outcomes"}
    if record.topic == "t.dead-letters":
        assert (record.key, record.value) == (key, value)


def test_a_copy_of_another_topic_or_of_long_ago_is_not_trusted(tmp_path: Path) -> None:
    first = PartitionState(tmp_path, "events-id", "outcomes-id", "parked-id")
    first.states.write({b"ada": b"{}"}, 3)
    first.close()
    second = PartitionState(tmp_path, "events-id", "outcomes-id", "parked-id")
    assert (second.states.get(b"ada"), second.states.next_offset) == (b"{}", 3)
    second.close()
    other = PartitionState(tmp_path, "made-anew", "outcomes-id", "parked-id")
    assert (other.states.get(b"ada"), other.states.next_offset) == (None, None)
    other.close()
