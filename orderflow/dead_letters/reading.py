"""Reads whole topics to their committed ends; for topics that are small unless something is very wrong."""

import time
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from runtime import kafka
from runtime.records import IncomingRecord, incoming
from runtime.settings import Settings

AT_ONCE: Final = 5_000
POLL_S: Final = 0.1
PATIENCE_S: Final = 30.0


def read_all(
    settings: Settings, places: Collection[tuple[str, int]], see: Callable[[Message], None]
) -> None:
    """Shows every record of these partitions that is committed by now, each partition's in order.

    Raises KafkaException; TimeoutError when nothing came for 30 s.
    """
    consumer = kafka.new_reader(settings)
    try:
        ends = {
            place: kafka.watermarks(consumer, TopicPartition(*place), PATIENCE_S)[1]
            for place in places
        }
        left = set(places)
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        moved_at = time.monotonic()
        while left:
            for message in kafka.what_came(consumer, AT_ONCE, POLL_S):
                moved_at = time.monotonic()
                error, place = message.error(), (message.topic() or "", message.partition() or 0)
                if error is None:
                    see(message)
                    if (message.offset() or 0) + 1 >= ends[place]:  # a busy topic has no other end
                        left.discard(place)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(place)
                elif not kafka.is_transient(error):
                    raise KafkaException(error)
            if time.monotonic() - moved_at > PATIENCE_S:
                raise TimeoutError(f"nothing could be read of {sorted(left)} for {PATIENCE_S:g} s")
    finally:
        consumer.close()


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
