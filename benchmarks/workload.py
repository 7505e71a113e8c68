"""What is measured with: orders of two lines, created and confirmed, and stock, as raw command records."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Producer

from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for

LINES = [
    {"sku": "mug-blue", "quantity": 2, "unit_price": 250},
    {"sku": "mug-red", "quantity": 1, "unit_price": 399},
]
USERS = 1_000

Record = tuple[bytes, bytes]
"""Key and value of a command's record."""


def commands(count: int, users: int = USERS, first: int = 0) -> Iterator[Record]:
    """``count`` commands: each order is created, then confirmed; orders are numbered from ``first``."""
    for number in range(count):
        order = first + number // 2
        if number % 2 == 0:
            yield creation(order, f"c-{number:08d}", users)
        else:
            yield _record(f"order-{order:07d}", "ConfirmOrder", f"c-{number:08d}", {})


def creations(count: int, first: int = 0, users: int = USERS) -> Iterator[Record]:
    """``count`` commands that create an order each, numbered from ``first``."""
    return (creation(order, f"n-{order:08d}", users) for order in range(first, first + count))


def creation(order: int, command_id: str, users: int = USERS) -> Record:
    """An order of two lines is created."""
    data = {"user_id": f"user-{order % users}", "currency": "GBP", "lines": LINES}
    return _record(f"order-{order:07d}", "CreateOrder", command_id, data)


def items(count: int) -> Iterator[Record]:
    """``count`` SKUs are registered, with a million pieces each."""
    data = {"description": "mug", "opening_stock": 1_000_000}
    return (_record(sku(n), "RegisterItem", f"i-{n:07d}", data) for n in range(count))


def reservations(count: int, skus: int, first: int = 0) -> Iterator[Record]:
    """``count`` reservations of one piece, on one SKU after the other."""
    for number in range(first, first + count):
        data = {"reservation_id": f"r-{number:08d}", "quantity": 1}
        yield _record(sku(number % skus), "ReserveStock", f"r-{number:08d}", data)


def to_and_fro(count: int, name: str) -> Iterator[Record]:
    """``count`` commands for one SKU: a reservation is made, then released."""
    for number in range(count):
        data: dict[str, object] = {"reservation_id": f"t-{number // 2:08d}"}
        if number % 2 == 0:
            yield _record(name, "ReserveStock", f"t-{number:08d}", data | {"quantity": 1})
        else:
            yield _record(name, "ReleaseReservation", f"t-{number:08d}", data)


def sku(number: int) -> str:
    """The id of a SKU."""
    return f"sku-{number:06d}"


def _record(key: str, kind: str, command_id: str, data: dict[str, Any]) -> Record:
    record = {"type": kind, "command_id": command_id, "data": data}
    return key.encode(), json.dumps(record, separators=(",", ":")).encode()


def fill(settings: Settings, topic: str, records: Iterable[Record]) -> int:
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


def fill_orders(settings: Settings, records: Iterable[Record]) -> int:
    """Commands for orders on their topic."""
    return fill(settings, topics_of(settings).commands("order"), records)


def fill_stock(settings: Settings, records: Iterable[Record]) -> int:
    """Commands for SKUs on their topic."""
    return fill(settings, topics_of(settings).commands("inventory"), records)
