"""How far the pipeline is behind: commands that are not decided yet, events that a view has not seen yet.

Of the views `readmodels.consistency` knows; here the commands are added. Offsets alone do not tell: markers
of transactions and records of aborted ones have offsets, too, and nobody will ever commit beyond the last.
So where a group has not come to the end and does not move, the records are looked for.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from redis.exceptions import RedisError

from processors import command_processor, saga_processor
from readmodels.consistency import Consistency
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

ANSWER_WITHIN_S: Final = 5.0
QUIET: Final = {"log_level": 0}
"""A broker that is gone is told by what is measured, not by lines of the client library."""

EXACT_UP_TO: Final = 200
"""So many offsets are looked at one by one; of more, those from the first record on are counted."""

LOOK_WITHIN_S: Final = 5.0
BATCH: Final = 1_000
POLL_S: Final = 0.2
SMALL: Final = {
    "fetch.message.max.bytes": 65_536,
    "queued.max.messages.kbytes": 1_024,
    "auto.offset.reset": "earliest",  # what retention has deleted waits for nobody
}
"""Options of a reader that looks at a few records of many partitions."""

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """``decided``: sum of the processors' committed offsets; ``waiting``: commands behind them.

    ``view_lags``: for each view the offsets it is behind its topics' ends.
    """

    decided: int
    waiting: int
    view_lags: dict[str, int]


class LagMeter:
    """Asks the broker and Redis where everybody stands. Keeps its clients; not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(kafka.admin(settings) | QUIET)
        self._views = Consistency(settings)
        self._topics = topics_of(settings)
        works = (command_processor.WORK, saga_processor.work(settings))
        self._commands = {
            work.group_id(settings): self._partitions(
                self._topics.commands(aggregate.name) for aggregate in work.aggregates
            )
            for work in works
        }
        self._askers = {g: kafka.group_asker(settings, g, QUIET) for g in self._commands}
        self._waiting = _Waiting(Consumer(kafka.reader(settings) | QUIET | SMALL))
        self._view_lags: dict[str, int] | None = None

    def close(self) -> None:
        """Drops the connections; the admin client goes with this object."""
        self._views.close()
        self._waiting.close()
        for asker in self._askers.values():
            asker.close()

    def measure(self) -> Sample:
        """Raises KafkaException or RedisError when a server does not answer."""
        committed: dict[Place, int] = {}
        for group, places in self._commands.items():
            committed |= kafka.group_offsets(self._askers[group], places, ANSWER_WITHIN_S)
        ends = kafka.end_offsets(self._admin, list(committed), ANSWER_WITHIN_S)
        waiting = self._waiting.count(committed, ends)
        decided = sum(max(0, offset) for offset in committed.values())
        return Sample(decided, waiting, self._behind())

    def try_measure(self) -> Sample | None:
        """As ``measure``; None while a server does not answer, which a live status has to survive."""
        try:
            return self.measure()
        except (KafkaException, RedisError):
            return None

    def _behind(self) -> dict[str, int]:
        """View → offsets it is behind. Holes are looked into only where nothing moves."""
        before, lags = self._view_lags, self._views.lags(self._views.watermarks())
        self._view_lags = lags
        if any(lags.values()) and before in (None, lags):
            return {one.view: one.events for one in self._views.status()}
        return lags

    def _partitions(self, topics: Iterable[str]) -> list[Place]:
        return [
            (topic, partition) for topic in topics for partition in range(self._topics.partitions)
        ]


class _Waiting:
    """Counts the records between committed offsets and ends. Cheap while nothing changes: what was looked at
    is remembered, and what moves is not looked at.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._seen: dict[Place, int] = {}
        self._known: dict[Place, tuple[tuple[int, int], int]] = {}

    def close(self) -> None:
        """Drop the connection."""
        self._consumer.close()

    def count(self, committed: Mapping[Place, int], ends: Mapping[Place, int]) -> int:
        """Records that wait, of all partitions. Raises KafkaException."""
        gaps = {
            at: (offset, ends[at]) for at, offset in committed.items() if max(0, offset) < ends[at]
        }
        moved = {at for at in gaps if self._seen.get(at, committed[at]) != committed[at]}
        self._seen = dict(committed)
        new = {
            at: gap
            for at, gap in gaps.items()
            if at not in moved and self._known.get(at, (None, 0))[0] != gap
        }
        looked = self._look(new) if new else {}
        self._known |= {at: (new[at], found) for at, found in looked.items()}
        return sum(
            self._known[at][1] if at in self._known and self._known[at][0] == gap else _offsets(gap)
            for at, gap in gaps.items()
        )

    def _look(self, gaps: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
        """Records in each gap, of those that could be read in time."""
        records = dict.fromkeys(gaps, 0)
        found: dict[Place, int] = {}
        self._consumer.assign(
            [
                TopicPartition(*at, start if start >= 0 else OFFSET_BEGINNING)
                for at, (start, _) in gaps.items()
            ]
        )
        deadline = time.monotonic() + LOOK_WITHIN_S
        try:
            while len(found) < len(gaps) and time.monotonic() < deadline:
                for message in kafka.what_came(self._consumer, BATCH, POLL_S):
                    at = str(message.topic()), int(message.partition() or 0)
                    if at in gaps and at not in found:
                        counted = _counted(message, gaps[at], records[at])
                        records[at] += message.error() is None
                        if counted is not None:
                            found[at] = counted
        finally:
            self._consumer.unassign()
        return found


def _offsets(gap: tuple[int, int]) -> int:
    return gap[1] - max(0, gap[0])


def _counted(message: Message, gap: tuple[int, int], before: int) -> int | None:
    """How many records wait, if this message tells it. ``before``: records of the gap that came before.

    Raises KafkaException.
    """
    error, offset = message.error(), int(message.offset() or 0)
    if error is not None:
        # The end of what can be read: an open transaction hides what comes after it.
        if error.code() == KafkaError._PARTITION_EOF:
            return before
        if kafka.is_transient(error):
            return None
        raise KafkaException(error)
    if offset >= gap[1]:
        return before
    if before == 0 and gap[1] - offset > EXACT_UP_TO:
        return gap[1] - offset
    return before + 1 if offset == gap[1] - 1 else None


def wait_for_views(
    settings: Settings,
    timeout: float,
    on_progress: Callable[[str, float | None], None] | None = None,
    look_after: Callable[[], None] | None = None,
) -> None:
    """Until every view has everything that stands in the topics now.

    Raises Inconsistent, KafkaException, RedisError. ``look_after`` is called in between.
    """
    with Consistency(settings) as views:
        views.wait_until_consistent(timeout, on_progress, look_after)
