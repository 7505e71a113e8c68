"""Reads whole topics as a committed reader sees them."""

from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from runtime import kafka
from runtime.records import incoming
from runtime.settings import Settings


class Record(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int = 0


def read_topic(settings: Settings, topic: str) -> list[Record]:
    """Everything committed on a topic, each partition in offset order."""
    return read_topics(settings, [topic])[topic]


def read_topics(settings: Settings, topics: list[str]) -> dict[str, list[Record]]:
    """The same of several topics, with one consumer."""
    consumer = Consumer(kafka.reader(settings))
    records: dict[str, list[Record]] = {topic: [] for topic in topics}
    try:
        known = consumer.list_topics(timeout=10).topics
        places = {(topic, p) for topic in topics for p in known[topic].partitions}
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        while places:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    records[message.topic() or ""].append(_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    places.discard((message.topic() or "", message.partition() or 0))
                elif not kafka.is_transient(error):
                    raise KafkaException(error)
    finally:
        consumer.close()
    for found in records.values():
        found.sort(key=lambda record: (record.partition, record.offset))
    return records


def _record(message: Message) -> Record:
    record = incoming(message)
    headers = {name: value for name, value in record.headers if isinstance(value, bytes)}
    _, sent_at_ms = message.timestamp()
    return Record(record.partition, record.offset, record.key, record.value, headers, sent_at_ms)
