"""Commands a second of one processor, next to the bare loop's."""

import time

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks import bare_loop
from benchmarks.roles import running
from processors.command_processor import WORK
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

POLL_S = 0.02


def processor_rate(settings: Settings, environment: dict[str, str], count: int) -> float:
    """Lets a processor of its own process decide what stands on the topics; returns commands a second.

    The clock runs from its first committed offsets to its last, so that starting it does not count.
    """
    admin = AdminClient(kafka.admin(settings))
    with running("processors", environment):
        started, first = 0.0, 0
        while True:
            committed = _committed(admin, settings)
            now = time.perf_counter()
            if committed and not started:
                started, first = now, committed
            if committed >= count:
                return (committed - first) / (now - started)
            time.sleep(POLL_S)


def _committed(admin: AdminClient, settings: Settings) -> int:
    """Sum of the group's offsets, which are what it has decided: the topics began at 0."""
    topic = topics_of(settings).commands("order")
    places = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
    group = WORK.group_id(settings)
    request = [ConsumerGroupTopicPartitions(group, places)]
    found = admin.list_consumer_group_offsets(request)[group].result().topic_partitions
    return sum(max(0, at.offset) for at in found)


def pair(settings: Settings, environment: dict[str, str], count: int) -> dict[str, float]:
    """The bare loop and the processor on the same commands, with as many in a transaction."""
    bare = bare_loop.run(settings, count, settings.batch_size)
    ours = processor_rate(settings, environment, count)
    return {"bare loop, commands/s": bare, "processor, commands/s": ours, "ratio": ours / bare}
