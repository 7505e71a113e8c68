"""The read side and records that no writer of the pipeline writes: each is a change or `Unreadable`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from orderflow.dead_letters.letters import Found, letters_of
from readmodels import questions, refusals
from readmodels.feed import halves
from readmodels.fetched import BATCH_BYTES, Records, Result
from readmodels.keys import FIRST_GENERATION, Keys
from readmodels.memory import MemoryProjector, MemoryRedis
from readmodels.records import UNREADABLE_HEADERS, Change, Unreadable, read
from readmodels.steps import drive
from readmodels.transport import Batch
from readmodels.views import VIEWS, View
from runtime.redis import pack
from schemas import headers
from schemas.headers import AGGREGATE_VERSION
from schemas.ids import is_id
from schemas.parking import parked_key, read_parked_key
from schemas.topics import Topics
from tests.support import events, hostile

EVENT_FIELDS = ["type", "id", "version", "occurred_at_ms", "state_version", "state", "subject_key"]


def state_of(view: View) -> bytes:
    made = {
        "orders": events.order("o-1", 1),
        "stock": events.stock("o-1", 1),
        "users": events.user("o-1", 1),
        "sagas": events.saga("o-1", 1),
    }[view.name]
    assert made.value is not None
    return made.value


@st.composite
def nearly_states(draw: st.DrawFn, view: View) -> bytes:
    """A true event in which one thing is replaced by another."""
    value = state_of(view)
    numbers = draw(
        st.sampled_from([b"-1", b"9" * 15, b"9" * 16, b"9" * 400, b"1e999", b'"\\u0000"'])
    )
    old = draw(
        st.sampled_from([b"1700000000000", b"1700000000001", b"1000", b"10", b'"Ada"', b"3"])
    )
    return value.replace(old, numbers, draw(st.integers(1, 5)))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@given(data=st.data())
def test_any_record_is_a_change_or_unreadable_and_what_it_makes_can_be_asked_for(
    view: View, data: st.DataObject
) -> None:
    key = data.draw(hostile.KEYS | st.just(b"o-1"))
    value = data.draw(hostile.values(EVENT_FIELDS) | nearly_states(view))
    headers = data.draw(hostile.HEADERS | st.just(list(UNREADABLE_HEADERS)))
    store = MemoryRedis()
    try:
        change = read(key, value, headers, view.states, view.project)
        MemoryProjector(store, "p").record(view.aggregate, key, value, headers)
    except Unreadable as cause:
        said = str(cause)
    else:
        said = ""
    assert len(said) < 2_000
    if said:
        return
    if change is None:
        return
    steps = view.apply(Keys("p", view.name, FIRST_GENERATION), [change])
    assert len(pack(next(steps))) < 50_000  # type: ignore[arg-type]  # no pause
    drive(store, questions.order("p", "o-1"))
    drive(store, questions.orders_of("p", "u-1", None, 10))
    drive(store, questions.user("p", "o-1"))
    drive(store, questions.stock("p", "o-1"))
    drive(store, questions.saga("p", "o-1"))
    drive(store, questions.sagas("p", None, 10))


def test_a_projection_that_fails_puts_aside_its_record_only() -> None:
    (orders,) = [view for view in VIEWS if view.name == "orders"]

    def fails(*_: object) -> None:
        raise RecursionError("deep")

    with pytest.raises(Unreadable, match="the projection failed") as told:
        read(b"o-1", state_of(orders), None, orders.states, fails)
    assert told.value.code == "internal_error"


@pytest.mark.parametrize("value", [b"9" * 5_000, b"-1", b"0", "²".encode(), b"9" * 17, None])
def test_a_tombstone_with_a_version_that_is_none_deletes_without_one(value: bytes | None) -> None:
    (orders,) = [view for view in VIEWS if view.name == "orders"]
    headers = [(AGGREGATE_VERSION, value)]
    change = read(b"o-1", None, headers, orders.states, orders.project)
    assert change == Change("o-1", None, None, reset=True)


# What aiokafka has fetched.


def fetched(names: list[str], codec: int) -> bytes:
    """A batch with a record for each name of a header."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 10_000_000)
    for offset, name in enumerate(names):
        headers = [("first", b"1"), (name, b"2")]
        builder.append(offset, 1_000 + offset, b"k%d" % offset, b"v" * offset, headers)
    return bytes(builder.build())


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
@given(bad=st.lists(st.booleans(), min_size=1, max_size=8))
@example(bad=[True, False])
def test_records_with_unreadable_header_names_are_handed_on_like_the_others(
    codec: int, bad: list[bool]
) -> None:
    good = fetched(["names" for _ in bad], codec)
    plain = fetched(["\x01\x02\x03\x04\x05" if one else "names" for one in bad], 0)
    data = plain.replace(b"\x01\x02\x03\x04\x05", b"\xff\xfe\xff\xfe\xff") if codec == 0 else good
    records = Records(data + good)
    first, second = records.next_batch(), records.next_batch()
    assert first is not None
    assert second is not None
    assert not records.has_next()
    found = list(first)
    assert [one.offset for one in found] == list(range(len(bad)))
    assert [one.key for one in found] == [b"k%d" % n for n in range(len(bad))]
    assert [one.value for one in found] == [b"v" * n for n in range(len(bad))]
    assert [one.timestamp for one in found] == [1_000 + n for n in range(len(bad))]
    broken = [list(one.headers) == list(UNREADABLE_HEADERS) for one in found]
    assert broken == (bad if codec == 0 else [False] * len(bad))
    assert len(list(second)) == len(bad)


def test_a_reading_ends_when_it_has_enough_bytes() -> None:
    def records() -> Iterator[Any]:
        for offset in range(10):
            yield SimpleNamespace(
                offset=offset,
                serialized_key_size=1,
                serialized_value_size=BATCH_BYTES // 2,
                headers=(("name", b"value"), ("none", None)),
            )

    result: Any = object.__new__(Result)
    result._topic_partition = result._assignment = None
    result.check_assignment = lambda _: True
    result._update_position = lambda: None
    result._partition_records = records()
    assert [one.offset for one in result.getall(1_000)] == [0, 1]
    assert [one.offset for one in result.getall(1)] == [2]


# What Redis refuses.


@pytest.mark.parametrize(
    ("fault", "content"),
    [
        (ResponseError("WRONGTYPE Operation against a key"), True),
        (ResponseError("Error running script (call to f_1): @user_script: not a sum"), True),
        (ResponseError("value is not a valid float"), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), False),
        (ResponseError("Error running script: @user_script: -OOM command not allowed"), False),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), False),
        (ReadOnlyError("You can't write against a read only replica."), False),
        (RedisConnectionError("gone"), False),
        (OSError("gone"), False),
    ],
)
def test_a_refusal_of_content_is_told_from_a_server_that_refuses_everything(
    fault: Exception, content: bool
) -> None:
    assert refusals.may_be_content(fault) == content


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.integers(0, 3))
def test_halves_cover_what_the_whole_covered(holes: list[int], end: int) -> None:
    offsets = [sum(holes[: n + 1]) + n for n in range(len(holes))]
    records = [SimpleNamespace(offset=offset) for offset in offsets]
    whole = Batch(("t", 0), 1, 0, offsets[-1] + 1 + end, records)
    first, second = halves(whole)
    assert (first.start, first.after, second.after) == (whole.start, second.start, whole.after)
    assert [*first.records, *second.records] == records
    assert all(one.offset < first.after for one in first.records)
    assert all(one.offset >= second.start for one in second.records)


# What stands on the topic of dead letters.


LETTER_MARKS: Any = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *(headers.ERROR_TOPIC, headers.ERROR_PARTITION, headers.ERROR_OFFSET),
                *(headers.ERROR_STAGE, headers.ERROR_HOLDS_KEY, headers.ERROR_ATTEMPT),
            )
        ),
        st.none()
        | st.sampled_from(
            (
                *(b"t.order.commands", b"x.order.commands", b"t.nope.commands", b"no such topic!"),
                *(b"0", b"1", b"99999999999", b"9" * 19, b"-1", b"true", b"\xff", b""),
            )
        ),
    ),
    max_size=8,
)


@given(st.lists(st.tuples(hostile.KEYS, hostile.HEADERS | LETTER_MARKS), max_size=5))
def test_any_record_on_the_topic_of_dead_letters_is_a_letter_of_this_pipeline_or_of_no_command(
    found: list[tuple[bytes | None, list[tuple[str, bytes | None]]]],
) -> None:
    """What is done about a letter goes to topics, partitions and keys that there are."""
    topics = Topics("t", partitions=2)
    letters = letters_of(
        [Found(0, offset, key, [*marks], 0, 0) for offset, (key, marks) in enumerate(found)],
        [],
        topics,
    )
    for one in letters:
        assert one.partition >= 0
        assert one.offset >= 0
        assert one.attempts >= 1
        if one.aggregate is not None:
            assert one.topic == topics.commands(one.aggregate)
            assert one.partition < topics.partitions
        if one.holder is not None:
            assert is_id(one.key or "")


@given(st.binary(max_size=30) | st.integers(0, 10**18 - 1).map(lambda n: parked_key(b"A/b", n)))
@example(b"0")
@example(b"A/12")
def test_whatever_is_read_as_a_key_of_what_is_parked_was_written_as_one(key: bytes) -> None:
    place = read_parked_key(key)
    assert place is None or parked_key(*place) == key
