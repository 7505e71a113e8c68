"""Makes the broker really compact a topic, and waits until it has."""

from typing import Final

from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from runtime import kafka
from runtime.settings import Settings
from tests.support.commanding import eventually
from tests.support.topics import Record, read_topic

EAGER: Final = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.0",
    "max.compaction.lag.ms": "500",
    "delete.retention.ms": "100",
}
"""The cleaner runs as soon as a segment is rolled."""

ROLL_KEY: Final = b"roll"


def compact(settings: Settings, topic: str) -> None:
    """Compacts a topic; the tombstones of ``roll`` that it writes do it are part of the test."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in EAGER.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient(kafka.admin(settings))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    partitions = len(admin.list_topics(topic, timeout=10).topics[topic].partitions)
    producer = Producer(kafka.producer(settings))

    def is_compacted() -> bool:
        # Only a further record rolls the segment that is to be cleaned.
        for partition in range(partitions):
            producer.produce(topic, None, ROLL_KEY, partition)
        producer.flush(10)
        return _is_compact(read_topic(settings, topic))

    eventually(is_compacted, timeout=60, every=0.6)


def _is_compact(records: list[Record]) -> bool:
    """No key of any partition twice, but for the records that roll the segments."""
    keys = [(r.partition, r.key) for r in records if r.key != ROLL_KEY]
    return len(keys) == len(set(keys))
