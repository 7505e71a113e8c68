"""Reading a topic up to where it was: without a broker, as one that never rests cannot be had at will."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from readmodels.lookup import read_between
from runtime.reading import NoEnd, wait_until_stable

PART = "t", 0


class Came:
    """A record, or the news that there are no more."""

    def __init__(self, offset: int, code: int | None = None) -> None:
        self._offset, self._code = offset, code

    def topic(self) -> str:
        return PART[0]

    def partition(self) -> int:
        return PART[1]

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> None:
        return None


class Feed:
    """As much of a consumer as is asked for here."""

    def __init__(self, messages: Iterator[Came]) -> None:
        self.messages = messages
        self.asked = 0

    def assign(self, _: list[Any]) -> None: ...

    def unassign(self) -> None: ...

    def consume(self, most: int, _wait: float) -> list[Came]:
        came = list(islice(self.messages, min(most, 2)))
        self.asked += 1
        assert self.asked < 100, "read beyond the end"
        return came


def read(messages: Iterator[Came], start: int, end: int) -> list[int]:
    feed = cast("Consumer", Feed(messages))
    found = read_between(feed, {PART: start}, {PART: end})
    return [raw.offset for raw in islice(found, 100)]


def test_a_partition_that_is_written_all_the_time_is_read_to_where_it_ended() -> None:
    assert read(map(Came, count()), 0, 3) == [0, 1, 2]


@pytest.mark.parametrize("first_behind", [5, 6, 9])
def test_holes_at_the_end_are_passed_by_the_first_record_behind_them(first_behind: int) -> None:
    assert read(map(Came, [0, 1, *range(first_behind, 20)]), 0, 5) == [0, 1]


def test_a_partition_that_rests_is_read_until_the_broker_says_so() -> None:
    end = Came(4, KafkaError._PARTITION_EOF)
    assert read(iter([Came(0), Came(1), end]), 0, 5) == [0, 1]


def test_nothing_is_read_of_what_begins_at_its_end() -> None:
    assert read(map(Came, count(7)), 7, 7) == []


class Stable:
    """A consumer whose stable end grows each time it is asked for."""

    def __init__(self, *ends: int) -> None:
        self.ends = list(ends)

    def get_watermark_offsets(self, _at: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]


def test_what_was_just_committed_is_waited_for() -> None:
    consumer = Stable(3, 4, 5, 9)
    wait_until_stable(cast("Consumer", consumer), {PART: 5})
    assert consumer.ends == [9]


def test_a_transaction_that_hangs_open_is_not_waited_for_for_ever() -> None:
    with pytest.raises(NoEnd):
        wait_until_stable(cast("Consumer", Stable(3)), {PART: 5}, patience_s=0.05)
