"""Reads whole topics to their committed ends; for topics that are small unless something is very wrong."""

import time
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime import kafka
from runtime.lanes import Place
from runtime.reading import read_between, wait_until_stable
from runtime.records import IncomingRecord, incoming
from runtime.settings import Settings

AT_ONCE: Final = 5_000
POLL_S: Final = 0.1
PATIENCE_S: Final = 30.0


def read_all(settings: Settings, places: Collection[Place], see: Callable[[Message], None]) -> None:
    """Shows every record of these partitions that is committed by now, each partition's in order.

    Raises KafkaException; TimeoutError when nothing came for 30 s.
    """
    ends = kafka.end_offsets(AdminClient(kafka.admin(settings)), places, PATIENCE_S)
    starts = dict.fromkeys(places, OFFSET_BEGINNING)
    with closing(kafka.new_reader(settings)) as consumer:
        wait_until_stable(consumer, ends, PATIENCE_S)  # else what was just ordered is not seen
        for message in read_between(consumer, starts, ends, AT_ONCE, PATIENCE_S):
            see(message)


def read_one(settings: Settings, topic: str, partition: int, offset: int) -> IncomingRecord | None:
    """The record at this offset; None when it is not there. Raises KafkaException, TimeoutError."""
    consumer = kafka.new_reader(settings)
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            message = consumer.poll(POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return incoming(message) if message.offset() == offset else None
            if error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                return None
            if not kafka.is_transient(error):
                raise KafkaException(error)
        raise TimeoutError(f"{topic}-{partition} could not be read for {PATIENCE_S:g} s")
    finally:
        consumer.close()
