"""Fills fresh generations from the topics: plain consumer, no group, all partitions, no records lost.

Done is a matter of offsets and end-of-partition events, never of the last record: markers of transactions
and compacted records leave holes at the end. An open transaction of a dead writer hides what lies behind
it until the broker aborts it; the target is the high watermark, so that is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from readmodels import positions
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.records import Change, Unreadable, read
from readmodels.steps import drive
from readmodels.views import View, by_topic
from runtime import kafka
from runtime.redis import Line
from runtime.settings import Settings
from runtime.topic_admin import topics_of

BATCH_RECORDS: Final = 2_000
POLL_S: Final = 0.2
STALLED_S: Final = 120.0
"""Longer than a broker leaves a dead writer's transaction open (60 s by default)."""

PROGRESS_EVERY_S: Final = 0.2


class Stalled(RuntimeError):
    """No progress for long."""


class MemoryLost(RuntimeError):
    """Redis lost what had been written: it was emptied or restored meanwhile. Rebuild again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of about ``total`` offsets are read, ``rate`` records a second."""

    done: int
    total: int
    rate: float


class Filling:
    """A context manager. ``new``: view → the keys of the generation to fill."""

    def __init__(
        self,
        settings: Settings,
        new: Mapping[View, Keys],
        line: Line,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.records = 0
        self.unreadable = 0
        self._new = new
        self._line = line
        self._on_progress = on_progress
        self._reading = by_topic(topics_of(settings), list(new))
        self._consumer = Consumer(kafka.reader(settings))
        self._starts: dict[TopicPart, int] = {}
        self._at: dict[TopicPart, int] = {}
        self._started = time.monotonic()
        self._told = 0.0
        # While Redis has a batch, the next one is decoded; one at a time, so the order is kept.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rebuild-writer")
        self._writing: Future[dict[TopicPart, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.shutdown(cancel_futures=True)
        finally:
            self._consumer.close()

    def begin(self, starts: Mapping[TopicPart, int]) -> None:
        """Assign the partitions at their first offsets."""
        self._starts, self._at = dict(starts), dict(starts)
        for topic, views in self._reading.items():
            mine = {part: at for part, at in starts.items() if part[0] == topic}
            for view in views:
                drive(self._line, positions.begin(self._new[view], mine))
        self._consumer.assign([TopicPartition(*part, at) for part, at in starts.items()])

    def read_to(self, targets: Mapping[TopicPart, int]) -> None:
        """Read until every partition is at its target. Raises Stalled, MemoryLost, KafkaException."""
        last, moved_at = self._sum(), time.monotonic()
        while any(self._at[part] < target for part, target in targets.items()):
            self._step(POLL_S)
            self._tell(targets)
            if self._sum() != last:
                last, moved_at = self._sum(), time.monotonic()
            elif time.monotonic() - moved_at > STALLED_S:
                raise Stalled(self._why_stalled(targets))
        self._settle()
        self._tell(targets, last_time=True)

    def catch_up(self, seconds: float) -> None:
        """Read what has come meanwhile, for this long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._step(min(POLL_S, left))
        self._settle()

    def targets(self, view: View) -> dict[TopicPart, int]:
        """How far this view is."""
        topics = [topic for topic, views in self._reading.items() if view in views]
        return {part: at for part, at in self._at.items() if part[0] in topics}

    def require_positions(self) -> None:
        """Raises MemoryLost unless Redis has the positions of what was read."""
        found = drive(self._line, positions.read(list(self._new.values())))
        for view, stored in zip(self._new, found, strict=True):
            if any(stored.get(part) != at for part, at in self.targets(view).items()):
                raise MemoryLost(MemoryLost.__doc__)

    def _step(self, seconds: float) -> None:
        messages = self._consumer.consume(BATCH_RECORDS, seconds)
        if not messages:
            self._settle()
            return
        after: dict[TopicPart, int] = {}
        by_view: dict[View, list[Change[Any]]] = {view: [] for view in self._new}
        for message in messages:
            part = (str(message.topic()), int(message.partition() or 0))
            offset = int(message.offset() or 0)
            error = message.error()
            if error is None:
                after[part] = offset + 1
                self._read(part[0], message, by_view)
            elif error.code() == KafkaError._PARTITION_EOF:
                after[part] = max(offset, after.get(part, 0))  # nothing readable lies before it
            elif not error.retriable():
                raise KafkaException(error)
        self._settle()
        news = {part: at for part, at in after.items() if at > self._at[part]}
        self._writing = self._writer.submit(self._apply, by_view, dict(self._at), news)

    def _settle(self) -> None:
        """Wait for the batch that is being written. Raises MemoryLost, RedisError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._at |= writing.result()

    def _read(self, topic: str, message: Message, by_view: dict[View, list[Change[Any]]]) -> None:
        self.records += 1
        key: Any = message.key()
        value: Any = message.value()
        headers: Any = message.headers() if value is None else None
        readable = True
        for view in self._reading[topic]:
            try:
                change = read(key, value, headers, view.project)
            except Unreadable:  # the projector has put it into the dead letters, or will
                readable = False
                continue
            if change is not None:
                by_view[view].append(change)
        self.unreadable += not readable

    def _apply(
        self,
        by_view: dict[View, list[Change[Any]]],
        before: Mapping[TopicPart, int],
        news: dict[TopicPart, int],
    ) -> dict[TopicPart, int]:
        for topic, views in self._reading.items():
            covers = {part: (before[part], at) for part, at in news.items() if part[0] == topic}
            batch = [(view, self._new[view], by_view[view]) for view in views]
            if covers and not drive(self._line, positions.apply_batch(batch, covers)):
                raise MemoryLost(MemoryLost.__doc__)
        return news

    def _sum(self) -> int:
        return sum(self._at.values())

    def _tell(self, targets: Mapping[TopicPart, int], *, last_time: bool = False) -> None:
        now = time.monotonic()
        if last_time or now - self._told > PROGRESS_EVERY_S:
            self._told = now
            first = sum(self._starts.values())
            total = max(sum(targets.values()) - first, 0)
            done = min(self._sum() - first, total)
            rate = self.records / max(now - self._started, 1e-6)
            self._on_progress(Progress(done, total, rate))

    def _why_stalled(self, targets: Mapping[TopicPart, int]) -> str:
        behind: Sequence[str] = [
            f"{positions.field(part)} at {self._at[part]} of {target}"
            for part, target in targets.items()
            if self._at[part] < target
        ]
        return (
            f"no progress for {STALLED_S:g} s: {', '.join(behind)}. Is the broker up? Or does a dead"
            " writer's transaction stand open (`kafka-transactions.sh find-hanging`)? The old views serve"
            " on."
        )
