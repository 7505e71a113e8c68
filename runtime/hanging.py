"""Transactions that hang: open on a partition for longer than any transaction may take. No reader of
committed records gets past one.

The client library of the product cannot ask whose they are or end them, so these requests are spoken here:
DescribeProducers, ListTransactions and WriteTxnMarkers, as `kafka-transactions.sh` does (KIP-664).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiokafka import TopicPartition as Partition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime import kafka
from runtime.settings import Settings
from runtime.transaction_requests import DescribeProducers, ListTransactions, WriteMarker

HANGS_AFTER_S: Final = 1.5 * kafka.TRANSACTION_TIMEOUT_MS / 1000
"""A transaction of a processor is aborted by the broker after its time-out, within a second or two."""

logger = logging.getLogger(__name__)

STILL_MEANT: Final = frozenset({"Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit"})
"""What a coordinator says of a transaction that must not simply be aborted: it is under way, or committed."""

WATCH_EVERY_S: Final = 30.0
LOOK_EVERY_S: Final = 0.5
CALL_S: Final = 10.0

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Hanging:
    """An open transaction. ``transactional_id`` and ``state``: as its coordinator knows it; empty where it
    does not know the producer.
    """

    topic: str
    partition: int
    stable_offset: int
    end: int
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    transactional_id: str
    state: str


class NotAnswered(TimeoutError):
    """A broker could not say whose transactions hang, or end them."""


def stuck(
    settings: Settings, places: Collection[Place], after_s: float = HANGS_AFTER_S
) -> dict[Place, int]:
    """Return the partitions on which one transaction stays open for this long, with its last stable offset.

    Returns at once where none is open. Raises KafkaException.
    """
    client = AdminClient(kafka.admin(settings))
    until = time.monotonic() + after_s
    suspects = _open(client, places)
    while suspects and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        now = _open(client, list(suspects))
        suspects = {at: offset for at, offset in now.items() if suspects[at] == offset}
    return suspects


def _open(client: AdminClient, places: Collection[Place]) -> dict[Place, int]:
    """Partitions whose last stable offset is before their end."""
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
    if not asked:
        return {}

    def stable() -> dict[Place, int]:
        answers = client.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=CALL_S
        )
        return {(at.topic, at.partition): f.result(2 * CALL_S).offset for at, f in answers.items()}

    # The end is asked first: it only grows, so what is committed in between is not taken for open.
    ends = kafka.end_offsets(client, places, CALL_S)
    found = kafka.until_answered(stable, CALL_S)
    return {place: offset for place, offset in found.items() if offset < ends[place]}


class HangingWatch:
    """A thread that logs hanging transactions on some partitions, from its entering to its leaving."""

    def __init__(self, settings: Settings, places: Collection[Place]) -> None:
        self._settings = settings
        self._places = places
        self._left = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="hanging-watch", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()

    def _watch(self) -> None:
        while not self._left.wait(WATCH_EVERY_S):
            try:
                found = stuck(self._settings, self._places)
            except (KafkaException, TimeoutError):
                continue  # a broker that is away is reported by those who wait for it
            if found:
                where = ", ".join(f"{topic}-{n} at {at}" for (topic, n), at in found.items())
                logger.error(
                    "a transaction hangs open on %s: nothing behind it can be read. `orderflow topics "
                    "abort-hanging` says whose it is and ends it",
                    where,
                )


def find(settings: Settings, found: dict[Place, int]) -> list[Hanging]:
    """Say whose the transactions on these partitions are. Raises KafkaException, NotAnswered."""
    ends = kafka.end_offsets(AdminClient(kafka.admin(settings)), list(found), CALL_S)
    try:
        return asyncio.run(_find(settings, found, ends))
    except KafkaError as error:
        raise NotAnswered(f"{NotAnswered.__doc__}: {error}") from error


def abort(settings: Settings, hanging: Iterable[Hanging]) -> None:
    """Write the marker that aborts each of these transactions on its partition. Raises NotAnswered."""
    try:
        asyncio.run(_abort(settings, list(hanging)))
    except KafkaError as error:
        raise NotAnswered(f"{NotAnswered.__doc__}: {error}") from error


async def _find(
    settings: Settings, found: dict[Place, int], ends: dict[Place, int]
) -> list[Hanging]:
    client = await _client(settings, (topic for topic, _ in found))
    try:
        known: dict[int, tuple[str, str]] = {}
        for broker in client.cluster.brokers():
            answer = await client.send(broker.nodeId, ListTransactions())
            known |= {
                producer: (name, state) for name, producer, state, _ in answer.transaction_states
            }
        hanging = []
        for (topic, number), stable in found.items():
            node = client.cluster.leader_for_partition(Partition(topic, number))
            answer = await client.send(node, DescribeProducers(topic, number))
            ((_, ((_, _, _, producers, _),), _),) = answer.topics
            for producer, epoch, _, _, coordinator_epoch, start, _ in producers:
                if start >= 0:
                    name, state = known.get(producer, ("", ""))
                    hanging.append(
                        Hanging(
                            topic,
                            number,
                            stable,
                            ends[topic, number],
                            producer,
                            epoch,
                            # A producer whose first transaction hangs has had no coordinator's marker yet.
                            max(coordinator_epoch, 0),
                            name,
                            state,
                        )
                    )
        return hanging
    finally:
        await client.close()


async def _abort(settings: Settings, hanging: Sequence[Hanging]) -> None:
    client = await _client(settings, (one.topic for one in hanging))
    try:
        for one in hanging:
            node = client.cluster.leader_for_partition(Partition(one.topic, one.partition))
            answer = await client.send(node, _marker(one))
            ((_, ((_, ((_, code, _),), _),), _),) = answer.markers
            if code:
                raise NotAnswered(f"{one.topic}-{one.partition}: error {code} of the broker")
    finally:
        await client.close()


def _marker(one: Hanging) -> WriteMarker:
    return WriteMarker(
        one.topic, one.partition, one.producer_id, one.producer_epoch, one.coordinator_epoch
    )


async def _client(settings: Settings, topics: Iterable[str]) -> AIOKafkaClient:
    """A client that knows the leaders of these topics."""
    password = settings.kafka_sasl_password
    files = settings.kafka_ssl_ca_location, settings.kafka_ssl_certificate_location
    client = AIOKafkaClient(
        bootstrap_servers=(settings.kafka_bootstrap_servers or "").split(","),
        security_protocol=settings.kafka_security_protocol,
        ssl_context=create_ssl_context(
            cafile=files[0] and str(files[0]),
            certfile=files[1] and str(files[1]),
            keyfile=settings.kafka_ssl_key_location and str(settings.kafka_ssl_key_location),
        )
        if "SSL" in settings.kafka_security_protocol
        else None,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_plain_username=settings.kafka_sasl_username,
        sasl_plain_password=password.get_secret_value() if password else None,
        request_timeout_ms=int(CALL_S * 1000),
    )
    await client.bootstrap()
    await client.set_topics(set(topics))
    return client
