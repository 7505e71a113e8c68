"""How far the pipeline is behind: commands that are not decided yet, events that a view has not seen yet.

Of the views `readmodels.consistency` knows; here the commands are added.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from redis.exceptions import RedisError

from processors import command_processor, saga_processor
from readmodels.consistency import Consistency
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

ANSWER_WITHIN_S: Final = 5.0

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
        # A broker that is gone is told by what is measured, not by lines of the client library.
        self._admin = AdminClient(kafka.admin(settings) | {"log_level": 0})
        self._views = Consistency(settings)
        self._topics = topics_of(settings)
        works = (command_processor.WORK, saga_processor.work(settings))
        self._commands = {
            work.group_id(settings): self._partitions(
                self._topics.commands(aggregate.name) for aggregate in work.aggregates
            )
            for work in works
        }

    def close(self) -> None:
        """Drops the connections of the views; the admin client goes with this object."""
        self._views.close()

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
        request = ConsumerGroupTopicPartitions(group, self._commands[group])
        answers = self._admin.list_consumer_group_offsets(
            [request], request_timeout=ANSWER_WITHIN_S
        )
        found: Iterable[TopicPartition] = answers[group].result().topic_partitions
        return sum(max(0, at.offset) for at in found)


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
