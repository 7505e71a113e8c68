"""How far the pipeline is behind: commands that are not decided yet, events that a view has not seen yet.

Of the views `readmodels.consistency` knows; here the commands are added.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from redis.exceptions import RedisError

from processors import command_processor, saga_processor
from readmodels.consistency import Consistency
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

ANSWER_WITHIN_S: Final = 5.0
QUIET: Final = {"log_level": 0}
"""A broker that is gone is told by what is measured, not by lines of the client library."""

Ends = dict[tuple[str, int], int]


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

    def close(self) -> None:
        """Drops the connections; the admin client goes with this object."""
        self._views.close()
        for asker in self._askers.values():
            asker.close()

    def measure(self) -> Sample:
        """Raises KafkaException or RedisError when a server does not answer."""
        committed = sum(self._committed(group) for group in self._commands)
        ends = [self._ends(partitions) for partitions in self._commands.values()]
        waiting = sum(sum(found.values()) for found in ends) - committed
        return Sample(committed, max(0, waiting), self._views.lags(self._views.watermarks()))

    def try_measure(self) -> Sample | None:
        """As ``measure``; None while a server does not answer, which a live status has to survive."""
        try:
            return self.measure()
        except (KafkaException, RedisError):
            return None

    def _partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in range(self._topics.partitions)
        ]

    def _ends(self, partitions: list[TopicPartition]) -> Ends:
        asked = {partition: OffsetSpec.latest() for partition in partitions}
        answers = self._admin.list_offsets(asked, request_timeout=ANSWER_WITHIN_S)
        return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}

    def _committed(self, group: str) -> int:
        places = [(at.topic, at.partition) for at in self._commands[group]]
        found = kafka.group_offsets(self._askers[group], places, ANSWER_WITHIN_S)
        return sum(max(0, offset) for offset in found.values())


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
