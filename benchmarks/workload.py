"""What is measured with: orders of two lines, created and confirmed, as raw command records."""

import json
from collections.abc import Iterator

from confluent_kafka import Producer

from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for

LINES = [
    {"sku": "mug-blue", "quantity": 2, "unit_price": 250},
    {"sku": "mug-red", "quantity": 1, "unit_price": 399},
]


def commands(count: int, users: int = 1_000) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of ``count`` command records: each order is created, then confirmed."""
    for number in range(count):
        order = number // 2
        if number % 2 == 0:
            data: dict[str, object] = {
                "user_id": f"user-{order % users}",
                "currency": "GBP",
                "lines": LINES,
            }
            kind = "CreateOrder"
        else:
            data, kind = {}, "ConfirmOrder"
        record = {"type": kind, "command_id": f"c-{number:08d}", "data": data}
        yield f"order-{order:07d}".encode(), json.dumps(record, separators=(",", ":")).encode()


def fill(settings: Settings, topic: str, records: Iterator[tuple[bytes, bytes]]) -> int:
    """Produces records and waits until the broker has them; returns how many."""
    producer = Producer(kafka.producer(settings) | {"linger.ms": 20})
    count = 0
    for key, value in records:
        partition = partition_for(key, settings.partitions)
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
    producer.flush()
    return count


def fill_orders(settings: Settings, count: int) -> int:
    """``count`` order commands on their topic."""
    return fill(settings, topics_of(settings).commands("order"), commands(count))
