"""How consistent every view is with the log: where it is, where its topic ends, how long it has been behind.

A registry of the views with their partitions. A position behind the end does not mean that something is
missing: markers of transactions and compacted records leave holes. So where a view is behind, the next record
is looked for; if there is none before the end, the view has everything, and otherwise the record's age is the
lag in seconds. May be imported by everybody who may import `readmodels`; writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from readmodels import positions, questions
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.steps import drive
from readmodels.unreadable import ReadableRunner
from readmodels.views import named
from runtime import kafka
from runtime.redis import is_cluster, new_line
from runtime.settings import Settings
from runtime.topic_admin import topics_of

ANSWER_WITHIN_S: Final = 5.0
LOOK_EVERY_S: Final = 0.1
FIRST_RECORD_WITHIN_S: Final = 5.0

Watermarks = Mapping[TopicPart, tuple[int, int]]
OnProgress = Callable[[str, float | None], None]
LookAfter = Callable[[], None]


class Inconsistent(TimeoutError):
    """A view did not get there in time; is a projector running?"""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """``position``: the next offset the view reads; ``end``: the one after the last record of the partition.
    ``events``: at most so many records are missing (holes count until they are looked into); ``seconds``:
    age of the oldest of them, 0 if none is.
    """

    topic: str
    partition: int
    position: int
    end: int
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ViewConsistency:
    """A view with all its partitions."""

    view: str
    generation: int
    partitions: tuple[PartitionStatus, ...]

    @property
    def events(self) -> int:
        """How many records it is behind, at most."""
        return sum(one.events for one in self.partitions)

    @property
    def seconds(self) -> float:
        """How old the oldest record is that it does not have."""
        return max((one.seconds for one in self.partitions), default=0.0)

    @property
    def consistent(self) -> bool:
        """Whether it has everything that was committed when it was looked at."""
        return not self.events


class Consistency:
    """The registry. Keeps its connections; close it, or use it as a context manager. Not thread-safe.

    ``views``: names, all if none are given. Every method may raise KafkaException and RedisError.
    """

    def __init__(self, settings: Settings, views: Iterable[str] | None = None) -> None:
        self.views = named(views)
        self._settings = settings
        self._prefix = settings.topic_prefix
        topics = topics_of(settings)
        self._parts: dict[str, tuple[TopicPart, ...]] = {
            view.name: tuple((topics.events(view.aggregate), n) for n in range(settings.partitions))
            for view in self.views
        }
        self._line = new_line(settings)
        self._redis = ReadableRunner(self._line)
        self._spread = is_cluster(settings)
        # Only answers count: a broker that is away is told by an exception, not by the library's lines.
        self._admin = AdminClient(kafka.admin(settings) | {"log_level": 0})
        self._consumer = Consumer(kafka.reader(settings) | {"log_level": 0})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._line.close()
        self._consumer.close()

    def status(self) -> tuple[ViewConsistency, ...]:
        """Every view as it is now, holes looked into."""
        return self._statuses(self.watermarks(), look_into=True)

    def watermarks(self) -> dict[TopicPart, tuple[int, int]]:
        """Partition → first offset and the one after the last, of all views."""
        parts = [part for parts in self._parts.values() for part in parts]
        low = kafka.first_offsets(self._admin, parts, ANSWER_WITHIN_S)
        high = kafka.end_offsets(self._admin, parts, ANSWER_WITHIN_S)
        return {part: (low[part], high[part]) for part in low}

    def lags(self, marks: Watermarks) -> dict[str, int]:
        """View → offsets it is behind these ends, holes and all. Asks Redis alone."""
        return {one.view: one.events for one in self._statuses(marks, look_into=False)}

    def wait_until_consistent(
        self,
        timeout: float,
        on_progress: OnProgress | None = None,
        look_after: LookAfter | None = None,
    ) -> None:
        """Until every view has everything that was in its topics at the moment of the call: the high
        watermarks of then, whatever comes later. ``look_after`` is called in between.

        Raises Inconsistent.
        """
        marks = self.watermarks()
        deadline = time.monotonic() + timeout
        first: int | None = None
        before: dict[str, int] = {}
        while behind := self._missing(marks, before):
            before = self.lags(marks)
            left = sum(behind.values())
            first = left if first is None else first
            if on_progress is not None:
                on_progress(f"{left:,} behind", 1 - left / first)
            if time.monotonic() > deadline:
                names = ", ".join(f"{view} by {lag:,}" for view, lag in behind.items())
                raise Inconsistent(f"after {timeout:g} s the views are still behind: {names}")
            if look_after is not None:
                look_after()
            time.sleep(LOOK_EVERY_S)
        if on_progress is not None:
            on_progress("nothing behind", 1.0)

    def wait_for_version(self, view: str, aggregate_id: str, version: int, timeout: float) -> int:
        """Read your own writes: until a view has an aggregate at this version (an outcome's) or a newer one;
        returns what it has. Raises ViewTimeout.
        """
        return drive(
            self._redis,
            questions.wait_for(self._prefix, view, aggregate_id, version, timeout),
        )

    def wait_for_offset(self, view: str, part: TopicPart, offset: int, timeout: float) -> None:
        """Until a view has the record at this offset of one of its partitions. Raises Inconsistent."""
        deadline = time.monotonic() + timeout
        while (at := self._positions()[view][1].get(part, 0)) <= offset:
            if time.monotonic() > deadline:
                field = positions.field(part)
                raise Inconsistent(
                    f"after {timeout:g} s the view {view} is at {at} of {field}, not beyond {offset}"
                )
            time.sleep(LOOK_EVERY_S)

    def _missing(self, marks: Watermarks, before: Mapping[str, int]) -> dict[str, int]:
        """Views that are behind these ends. Holes are looked into only where nothing moves any more."""
        lags = self.lags(marks)
        if any(lags.values()) and lags == before:
            lags = {one.view: one.events for one in self._statuses(marks, look_into=True)}
        return {view: lag for view, lag in lags.items() if lag}

    def _positions(self) -> dict[str, tuple[int, dict[TopicPart, int]]]:
        live = drive(self._redis, positions.live(self._prefix, self.views))
        keys = [Keys(self._prefix, v.name, live[v.name], self._spread) for v in self.views]
        found = drive(self._redis, positions.read(keys))
        return {
            view.name: (live[view.name], at) for view, at in zip(self.views, found, strict=True)
        }

    def _statuses(self, marks: Watermarks, *, look_into: bool) -> tuple[ViewConsistency, ...]:
        found = self._positions()
        behind = {
            (part, at.get(part, marks[part][0])): marks[part][1]
            for view, (_, at) in found.items()
            for part in self._parts[view]
            if at.get(part, marks[part][0]) < marks[part][1]
        }
        ages = {at: self._oldest(*at, end) for at, end in behind.items()} if look_into else {}
        return tuple(
            ViewConsistency(
                view.name,
                found[view.name][0],
                tuple(
                    self._partition(part, found[view.name][1], marks[part], ages)
                    for part in self._parts[view.name]
                ),
            )
            for view in self.views
        )

    def _partition(
        self,
        part: TopicPart,
        at: Mapping[TopicPart, int],
        marks: tuple[int, int],
        ages: Mapping[tuple[TopicPart, int], float | None],
    ) -> PartitionStatus:
        low, end = marks
        position = at.get(part, low)
        seconds = ages.get((part, position), 0.0)
        events = 0 if seconds is None else max(0, end - position)
        return PartitionStatus(*part, position, end, events, seconds or 0.0)

    def _oldest(self, part: TopicPart, position: int, end: int) -> float | None:
        """Age, in seconds, of the first record from there on; None if only holes lie before the end."""
        self._consumer.assign([TopicPartition(*part, position)])
        deadline = time.monotonic() + FIRST_RECORD_WITHIN_S
        try:
            while (left := deadline - time.monotonic()) > 0:
                message = self._consumer.poll(left)
                error = message.error() if message is not None else None
                if message is None or (error is not None and kafka.is_transient(error)):
                    continue
                if error is None:
                    if int(message.offset() or 0) >= end:
                        return None
                    return max(0.0, time.time() - message.timestamp()[1] / 1_000)
                if error.code() == KafkaError._PARTITION_EOF:
                    # What an open transaction hides may be committed yet; it does not end here.
                    return None if int(message.offset() or 0) >= end else 0.0
                raise KafkaException(error)
        finally:
            self._consumer.unassign()
        return 0.0
