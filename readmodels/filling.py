"""Fills generations from the topics: plain consumer, no group, all partitions, no records lost.

It begins where each generation is: a fresh one at the first offsets, one that was left at its own positions.

Done is a matter of offsets and end-of-partition events, never of the last record: markers of transactions
and compacted records leave holes at the end. An open transaction of a dead writer hides what lies behind
it until the broker aborts it; the target is the high watermark, so that is waited for.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from redis.exceptions import ResponseError

from readmodels import positions, refusals
from readmodels.generations import RebuildFailed
from readmodels.keys import Keys
from readmodels.lookup import headers_of
from readmodels.positions import TopicPart
from readmodels.records import Change, Unreadable, fold, read
from readmodels.steps import drive
from readmodels.views import View, by_topic
from readmodels.writing import Writing
from runtime import kafka
from runtime.redis import Line
from runtime.settings import Settings
from runtime.topic_admin import topics_of

logger = logging.getLogger(__name__)

BATCH_RECORDS: Final = 10_000
POLL_S: Final = 0.2
STALLED_S: Final = 120.0
"""Longer than a broker leaves a dead writer's transaction open (60 s by default)."""

PROGRESS_EVERY_S: Final = 0.2

Batch = list[tuple[View, Keys, list[Change[Any]]]]


Note = Callable[[View, Keys, Sequence[Change[Any]]], None]
"""Told of changes before they are written, when all that was read before them is."""

BATCHES_PER_S: Final = 5
"""With a limit on the rate, a batch is what may be read in a fifth of a second."""


class Stalled(RebuildFailed):
    """No progress for long."""


class MemoryLost(RebuildFailed):
    """Redis lost what had been written: it was emptied or restored meanwhile. Rebuild again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of about ``total`` offsets are read, ``rate`` records a second."""

    done: int
    total: int
    rate: float


class Filling:
    """A context manager. ``new``: view → the keys of the generation to fill; ``records_per_s``: read no
    faster than that.
    """

    def __init__(
        self,
        settings: Settings,
        new: Mapping[View, Keys],
        line: Line,
        on_progress: Callable[[Progress], None],
        records_per_s: int | None = None,
    ) -> None:
        self.records = 0
        self.unreadable = 0
        self._new = new
        self.line = line
        self._on_progress = on_progress
        self._records_per_s = records_per_s
        self._free_at = 0.0
        self._note: Note | None = None
        self._reading = by_topic(topics_of(settings), list(new))
        self._consumer = kafka.new_reader(settings)
        self._starts: dict[TopicPart, int] = {}
        self._at: dict[TopicPart, int] = {}
        self._assigned = False
        self._started = time.monotonic()
        self._told = 0.0
        self._writing = Writing(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writing.close()
        finally:
            self._consumer.close()

    def begin(self, starts: Mapping[TopicPart, int]) -> None:
        """Take up where the generations are; ``starts``: where one begins that is nowhere.

        Raises MemoryLost.
        """
        for topic, views in self._reading.items():
            mine = {part: at for part, at in starts.items() if part[0] == topic}
            for view in views:
                drive(self.line, positions.begin(self._new[view], mine))
        self._starts = self._stored(starts)
        self._at = dict(self._starts)

    def _stored(self, parts: Iterable[TopicPart]) -> dict[TopicPart, int]:
        """Where the generations are: all views of a topic, at least."""
        stored = drive(self.line, positions.read(list(self._new.values())))
        by_view = dict(zip(self._new, stored, strict=True))
        try:
            return {p: min(by_view[view][p] for view in self._reading[p[0]]) for p in parts}
        except KeyError as missing:
            raise MemoryLost(MemoryLost.__doc__) from missing

    def left(self, targets: Mapping[TopicPart, int]) -> dict[TopicPart, int]:
        """Partition → how many offsets there are to read yet, where there are any."""
        return {part: n for part, target in targets.items() if (n := target - self._at[part]) > 0}

    def filled_by_others(
        self, targets: Mapping[TopicPart, int], records: int, unreadable: int
    ) -> None:
        """Others have read so many records up to there. Raises MemoryLost if Redis does not have them."""
        self._at = self._stored(self._at)
        if self.left(targets):
            raise MemoryLost(MemoryLost.__doc__)
        self.records += records
        self.unreadable += unreadable

    def noting(self, note: Note | None) -> None:
        """From now on tell of changes before they are written; None: no longer."""
        self._writing.settle()
        self._note = note

    def read_to(self, targets: Mapping[TopicPart, int]) -> None:
        """Read until every partition is at its target. Raises Stalled, MemoryLost, KafkaException."""
        self._assign()
        last, moved_at = self._sum(), time.monotonic()
        while any(self._at[part] < target for part, target in targets.items()):
            self._step(POLL_S)
            self._tell(targets)
            if self._sum() != last:
                last, moved_at = self._sum(), time.monotonic()
            elif time.monotonic() - moved_at > STALLED_S:
                raise Stalled(self._why_stalled(targets))
        self._writing.settle()
        self._tell(targets, last_time=True)

    def targets(self, view: View) -> dict[TopicPart, int]:
        """How far this view is."""
        topics = [topic for topic, views in self._reading.items() if view in views]
        return {part: at for part, at in self._at.items() if part[0] in topics}

    def require_positions(self) -> None:
        """Raises MemoryLost unless Redis has the positions of what was read."""
        found = drive(self.line, positions.read(list(self._new.values())))
        for view, stored in zip(self._new, found, strict=True):
            if any(stored.get(part) != at for part, at in self.targets(view).items()):
                raise MemoryLost(MemoryLost.__doc__)

    def _assign(self) -> None:
        if not self._assigned:
            self._consumer.assign([TopicPartition(*part, at) for part, at in self._at.items()])
            self._assigned = True

    def _step(self, seconds: float) -> None:
        messages = kafka.what_came(self._consumer, self._allowed(), seconds)
        if not messages:
            self._writing.settle()
            return
        by_part: defaultdict[TopicPart, list[Message]] = defaultdict(list)
        ends: dict[TopicPart, int] = {}
        for message in messages:
            part: Any = message.topic(), message.partition()
            error = message.error()
            if error is None:
                by_part[part].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[part] = int(message.offset() or 0)  # nothing readable lies before it
            elif not error.retriable():
                raise KafkaException(error)
        for part in by_part | ends:
            of_part = by_part.get(part, [])
            read = int(of_part[-1].offset() or 0) + 1 if of_part else 0
            self._take(part, max(read, ends.get(part, 0)), of_part)

    def _take(self, part: TopicPart, at: int, messages: Sequence[Message]) -> None:
        if at <= self._at[part]:
            return
        batch = self._read(part[0], messages)
        if self._note is not None:
            self._writing.settle()
            for one in batch:
                self._note(*one)
        self._write(part, at, batch)

    def _allowed(self) -> int:
        """How many records may be read now; waits until that is at least one."""
        rate = self._records_per_s
        if rate is None:
            return BATCH_RECORDS
        time.sleep(max(0.0, self._free_at - time.monotonic()))
        return min(BATCH_RECORDS, max(1, rate // BATCHES_PER_S))

    def _read(self, topic: str, messages: Sequence[Message]) -> Batch:
        """What the records of one partition change in each of its views."""
        batch: Batch = [(view, self._new[view], []) for view in self._reading[topic]]
        for message in messages:
            key: Any = message.key()
            value: Any = message.value()
            headers = headers_of(message)
            readable = True
            for view, _, changes in batch:
                try:
                    change = read(key, value, headers, view.states, view.project)
                except Unreadable:  # the projector has put it into the dead letters, or will
                    readable = False
                    continue
                if change is not None:
                    changes.append(change)
            self.unreadable += not readable
        self.records += len(messages)
        if self._records_per_s is not None:
            free = max(self._free_at, time.monotonic())
            self._free_at = free + len(messages) / self._records_per_s
        return batch

    def _write(self, part: TopicPart, at: int, batch: Batch) -> None:
        covers = {part: (self._at[part], at)}

        def work(line: Line) -> None:
            try:
                whole = drive(line, positions.apply_batch(batch, covers))
            except ResponseError as refusal:
                if not refusals.may_be_content(refusal):
                    raise
                drive(line, positions.probe([keys for _, keys, _ in batch]))
                self.unreadable += _apply_smaller(line, batch)
                whole = drive(line, positions.apply_batch(_nothing(batch), covers))
            if not whole:
                raise MemoryLost(MemoryLost.__doc__)

        self._writing.submit(part, work)
        self._at[part] = at  # read; settling makes sure that it is written

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


def _apply_smaller(line: Line, batch: Batch) -> int:
    """Apply the changes that Redis takes, in order; return how many it refuses for what is in them.

    A projector puts the same ones aside.
    """
    refused = 0
    for view, keys, changes in batch:
        waiting = deque([changes])
        while waiting:
            some = waiting.popleft()
            try:
                drive(line, view.apply(keys, fold(some)))
            except ResponseError as refusal:
                if not refusals.may_be_content(refusal):
                    raise
                if len(some) > 1:
                    middle = len(some) // 2
                    waiting.extendleft((some[middle:], some[:middle]))
                    continue
                logger.error("%s %s is refused by Redis: %s", view.name, some[0].id, refusal)
                refused += 1
    return refused


def _nothing(batch: Batch) -> Batch:
    return [(view, keys, []) for view, keys, _ in batch]
