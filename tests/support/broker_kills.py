"""Load on a broker that is killed again and again, and what is asked of the log afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from orderflow.placing import order_command
from runtime import kafka
from runtime.client import CommandClient, NotDelivered, OutgoingCommand
from runtime.embedded import EmbeddedKafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import eventually
from tests.support.sagas import order

RAW_PARTITIONS = 8
WRITERS = 3


class RawWriters:
    """Threads that commit one small transaction after another over all partitions of a topic of their own,
    so that at any moment some transaction is between its commit and its markers.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self.topic = settings, name
        admin = AdminClient(kafka.admin(settings))
        admin.create_topics([NewTopic(name, RAW_PARTITIONS, 1)])[name].result(30)
        self.acknowledged: set[bytes] = set()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,), daemon=True)
            for number in range(WRITERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive()

    def wait_for_more(self) -> None:
        """Until another transaction has been committed."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) > before, 180, 0.1)

    def _write(self, number: int) -> None:
        config = kafka.transactional_producer(self._settings, f"raw.{self.topic}.{number}")
        done = 0
        while not self._stop.is_set():
            with suppress(KafkaException, SystemError):  # then with a new producer
                producer = Producer(config | {"log_level": 0})
                producer.init_transactions(30)
                while not self._stop.is_set():
                    done += 1
                    self._commit(producer, b"%d/%d" % (number, done))

    def _commit(self, producer: Producer, value: bytes) -> None:
        producer.begin_transaction()
        for partition in range(RAW_PARTITIONS):
            producer.produce(self.topic, value, b"k", partition)
        producer.commit_transaction(10)
        self.acknowledged.add(value)


def check_raw(settings: Settings, writers: RawWriters) -> int:
    """Each transaction is there once on every partition or not at all; all that were acknowledged are.

    Returns how many there are.
    """
    from tests.support.topics import read_topic

    found: dict[bytes, list[int]] = {}
    for record in read_topic(settings, writers.topic):
        found.setdefault(record.value or b"", []).append(record.partition)
    everywhere = list(range(RAW_PARTITIONS))
    assert all(sorted(partitions) == everywhere for partitions in found.values())
    assert writers.acknowledged <= found.keys()
    return len(found)


class Feed:
    """Orders of both kinds, a few a second, until the end of the block. All have been delivered by then,
    however long the broker was away: a client that hears of something that was not delivered sends all again.
    """

    def __init__(self, settings: Settings, pause_s: float = 0.15) -> None:
        self._settings, self._pause_s = settings, pause_s
        self._sent: list[OutgoingCommand] = []
        self._stop = threading.Event()
        self._ended: Future[None] = Future()

    @property
    def order_ids(self) -> list[str]:
        return [command.aggregate_id for command in self._sent]

    def __enter__(self) -> Self:
        self._ended = ThreadPoolExecutor(1, "feed").submit(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._ended.result(300)

    def _send(self) -> None:
        with CommandClient(self._settings) as client:
            while not self._stop.wait(self._pause_s):
                number = len(self._sent)
                kind = ("orchestration", "choreography")[number % 2]
                sent = order_command(f"o{number}", **order(A=1), coordination=kind)  # type: ignore[arg-type]
                client.send(sent)
                self._sent.append(sent)
            while not self._delivered(client):
                for command in self._sent:
                    client.send(command)

    @staticmethod
    def _delivered(client: CommandClient) -> bool:
        try:
            client.flush()
        except NotDelivered:
            return False
        return True


@dataclass
class Kills:
    """When the broker was gone, in seconds of the epoch."""

    gone: list[tuple[float, float]] = field(default_factory=list)

    def kill(self, broker: EmbeddedKafka, chance: random.Random) -> None:
        """Kill the broker at a random moment, and start it on the same data."""
        time.sleep(chance.uniform(2, 6))
        at = time.time()
        broker.kill()
        time.sleep(chance.uniform(0, 1))
        broker.start()
        self.gone.append((at, time.time()))

    def pauses(self, times: list[float]) -> list[float]:
        """Seconds from the broker's return to the first record, of each kill that no other followed first."""
        next_gone = [gone for gone, _ in self.gone[1:]] + [float("inf")]
        found = []
        for (_, back), until in zip(self.gone, next_gone, strict=True):
            first = min((one for one in times if one > back), default=float("inf"))
            if first < until or until == float("inf"):
                found.append(first - back)
        return found


OUTPUT: dict[str, Callable[[Settings], str]] = {
    "processor": lambda settings: topics_of(settings).outcomes("order"),
    "saga-processor": lambda settings: topics_of(settings).history("saga"),
    "payments": lambda settings: topics_of(settings).commands("payment"),
}
"""By role, a topic that it writes to."""


def times_of(settings: Settings, topic: str, accept: Callable[[Message], bool]) -> list[float]:
    """When the committed records of a topic were written, in seconds of the epoch."""
    from runtime.reading import read_to_end

    reader: Consumer = kafka.new_reader(settings)
    places = [
        (topic, number) for number in reader.list_topics(topic, timeout=30).topics[topic].partitions
    ]
    found = [m.timestamp()[1] / 1000 for m in read_to_end(reader, places) if accept(m)]
    reader.close()
    return sorted(found)


def hanging(settings: Settings) -> list[str]:
    """Partitions whose last stable offset is not their end."""
    admin = AdminClient(kafka.admin(settings))
    known = admin.list_topics(timeout=30).topics
    places = [(name, number) for name, topic in known.items() for number in topic.partitions]

    def ends(level: IsolationLevel) -> dict[tuple[str, int], int]:
        asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=30)
        return {(at.topic, at.partition): f.result(30).offset for at, f in answers.items()}

    levels = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
    stable, high = (kafka.until_answered(partial(ends, level), 60) for level in levels)
    return [f"{place[0]}-{place[1]}" for place in places if stable[place] < high[place]]


PREPARED = {4, 5}
"""Codes of PrepareCommit and PrepareAbort in the transaction log."""

COMPLETE = {0, 1, 2, 3, 6, 7, 8}


def caught_between(settings: Settings, kills: Kills) -> int:
    """How many transactions were prepared before a kill of the broker and completed after it."""
    reader = kafka.new_reader(settings)
    log = "__transaction_state"
    places = [(log, n) for n in reader.list_topics(log, timeout=30).topics[log].partitions]
    open_since: dict[bytes, float] = {}
    caught = 0
    for key, value, at in _states(reader, places):
        status = value[16]
        if status in PREPARED:
            open_since.setdefault(key, at)
        elif (since := open_since.pop(key, None)) is not None:
            caught += any(since <= gone and at > gone for gone, _ in kills.gone)
    reader.close()
    return caught


def _states(
    reader: Consumer, places: list[tuple[str, int]]
) -> Iterator[tuple[bytes, bytes, float]]:
    from runtime.reading import read_to_end

    for message in read_to_end(reader, places):
        value = message.value()
        if message.error() is None and value is not None:
            yield message.key() or b"", value, message.timestamp()[1] / 1000
