"""Puts event records on the topics as a processor does, without one: transactions, states, tombstones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from runtime import kafka
from runtime.settings import Settings
from schemas.headers import AGGREGATE_VERSION
from schemas.inventory import StockLevel
from schemas.order import OrderLine, OrderState, OrderStatus
from schemas.partitioner import partition_for
from schemas.records import EventRecord, encode
from schemas.saga import SagaState, SagaStatus, StepState, StepStatus
from schemas.topics import Topics
from schemas.user import UserState, UserStatus

NOON_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Record:
    """A record of an events topic. ``value`` None is a tombstone."""

    aggregate: str
    key: str
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def key_bytes(self) -> bytes:
        return self.key.encode()


def event(aggregate: str, key: str, version: int, state: Any, kind: str = "Changed") -> Record:
    """The event at ``version``, with the whole state after it."""
    record = EventRecord(
        type=kind,
        id=f"{key}-{version}",
        version=version,
        occurred_at_ms=NOON_MS + version,
        data=msgspec.Raw(b"{}"),
        state=msgspec.Raw(encode(state)),
    )
    return Record(aggregate, key, encode(record))


def tombstone(aggregate: str, key: str, version: int | None) -> Record:
    """The deletion at ``version``; None: without the header that says at which."""
    headers = () if version is None else ((AGGREGATE_VERSION, str(version).encode()),)
    return Record(aggregate, key, None, headers)


def order(
    order_id: str,
    version: int,
    *,
    user: str = "u-1",
    status: OrderStatus = OrderStatus.CREATED,
    total: int = 1_000,
    currency: str = "EUR",
    created: int = NOON_MS,
) -> Record:
    """An order after its event number ``version``."""
    lines = (OrderLine("SKU-1", 1, total),)
    state = OrderState(status, user, currency, lines, total, created, created + version)
    return event("order", order_id, version, state)


def stock(
    sku: str, version: int, *, on_hand: int = 10, reserved: int = 0, threshold: int = 3
) -> Record:
    """A SKU after its event number ``version``."""
    level = StockLevel(f"a {sku}", threshold, on_hand, reserved, on_hand, 0, 0, NOON_MS + version)
    return event("inventory", sku, version, level)


def user(
    user_id: str, version: int, *, name: str = "Ada", email: str | None = None, active: bool = True
) -> Record:
    """A user after its event number ``version``."""
    status = UserStatus.ACTIVE if active else UserStatus.DEACTIVATED
    state = UserState(status, name, email, NOON_MS, NOON_MS + version)
    return event("user", user_id, version, state)


def saga(
    saga_id: str,
    version: int,
    *,
    status: SagaStatus = SagaStatus.RUNNING,
    moved: int | None = None,
    answers: str = "+A",
    undo_answers: str = "",
    **more: Any,
) -> Record:
    """A saga after its event number ``version``, with one step; ``more`` of the fields of its state."""
    step = StepState(
        "reserveInventory", StepStatus.RUNNING, answers, NOON_MS, undo_answers=undo_answers
    )
    at_ms = NOON_MS + (version if moved is None else moved)
    state = SagaState("create_order", status, msgspec.Raw(b"{}"), NOON_MS, at_ms, (step,), **more)
    return event("saga", saga_id, version, state)


class EventProducer:
    """A transactional producer on the events topics of the settings' prefix."""

    def __init__(self, settings: Settings, transactional_id: str = "test") -> None:
        self.topics = Topics(settings.topic_prefix, settings.partitions)
        name = f"{settings.topic_prefix}-{transactional_id}"
        self._producer = Producer(kafka.transactional_producer(settings, name))
        self._producer.init_transactions(30)
        self.reached: dict[tuple[str, int], int] = {}
        """Partition → the offset after the last record whose transaction has ended."""
        self._put: dict[tuple[str, int], int] = {}

    def commit(self, records: Iterable[Record]) -> None:
        """All records in one transaction."""
        self._produce(records)
        self.commit_open()

    def abort(self, records: Iterable[Record]) -> None:
        """The records get onto the topic, but their transaction is aborted."""
        self._produce(records)
        self._producer.flush(30)
        self._producer.abort_transaction(30)
        self.reached |= self._put

    def leave_open(self, records: Iterable[Record]) -> None:
        """The records get onto the topic, and the transaction stays open."""
        self._produce(records)
        self._producer.flush(30)

    def commit_open(self) -> None:
        """Commit what `leave_open` left."""
        self._producer.commit_transaction(30)
        self.reached |= self._put

    def _produce(self, records: Iterable[Record]) -> None:
        self._producer.begin_transaction()
        for record in records:
            while True:
                try:
                    self._producer.produce(
                        self.topics.events(record.aggregate),
                        key=record.key_bytes,
                        value=record.value,
                        headers=list(record.headers),
                        partition=partition_for(record.key_bytes, self.topics.partitions),
                        on_delivery=self._note,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.poll(0)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            place = message.topic() or "", message.partition() or 0
            self._put[place] = (message.offset() or 0) + 1
