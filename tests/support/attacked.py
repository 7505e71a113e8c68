"""A running pipeline that hostile records are put on, and what has to hold afterwards."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

import psutil
from confluent_kafka import KafkaError, Message, Producer

from orderflow.placing import OrderClient, Placed
from runtime.client import CommandClient, OutgoingCommand
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.decoding import whole_number
from schemas.partitioner import partition_for
from tests.support.commanding import eventually
from tests.support.hostile_kinds import Hostile
from tests.support.topics import read_topics
from tests.support.up import Up

PATIENCE_S: Final = 120.0
COMMANDS: Final = 8
"""Commands that are sent to see that every partition goes on."""

PRODUCER: Final = {"partitioner": "murmur2_random", "message.max.bytes": 100_000_000}


class Sent(NamedTuple):
    """Where a hostile record stands."""

    topic: str
    partition: int
    offset: int


class Attacked:
    """``up`` under the environment ``env``; ``settings`` are those of its roles."""

    def __init__(self, up: Up, env: dict[str, str], settings: Settings) -> None:
        self.up = up
        self.env = env
        self.settings = settings
        self.topics = topics_of(settings)
        self._numbers = itertools.count()

    def put(self, topic: str, records: Collection[Hostile]) -> list[Sent]:
        """Send records, compressed; return where those stand that the broker has taken."""
        sent: list[Sent] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                sent.append(Sent(topic, int(message.partition() or 0), int(message.offset() or 0)))

        bootstrap = {"bootstrap.servers": self.settings.kafka_bootstrap_servers}
        producer = Producer({**bootstrap, **PRODUCER, "compression.type": "lz4"})
        for record in records:
            key = record.key
            partition = 0 if not key else partition_for(key, self.settings.partitions)
            producer.produce(
                topic, record.value, key, partition, note, headers=list(record.headers)
            )
        assert producer.flush(PATIENCE_S) == 0
        return sent

    def pids(self) -> dict[str, int]:
        """Role → pid of the processes that ``up`` runs now."""
        found = {}
        for child in psutil.Process(self.up.process.pid).children():
            try:
                words = child.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it ends this moment
                continue
            if "orderflow" in words:
                found[words[words.index("orderflow") + 1]] = child.pid
        return found

    def kill_roles(self) -> None:
        """SIGKILL every role, and wait until its supervisor has started each again."""
        killed = self.pids()
        for pid in killed.values():
            psutil.Process(pid).kill()
        eventually(lambda: self._replaced(killed), PATIENCE_S)

    def _replaced(self, killed: dict[str, int]) -> bool:
        now = self.pids()
        return all(now.get(role, pid) != pid for role, pid in killed.items())

    def goes_on(self) -> None:
        """Assert that others are answered, an order is placed, and the views catch up."""
        name = f"probe-{next(self._numbers)}-{os.getpid()}"
        with CommandClient(self.settings) as client:
            futures = [client.submit(command) for command in _probes(name)]
            assert all(future.result(PATIENCE_S).accepted for future in futures)
        with OrderClient(self.settings) as orders:
            placed = orders.place_order(
                f"{name}-order",
                timeout=PATIENCE_S,
                user_id=f"{name}-0",
                lines=[{"sku": f"{name}-sku", "quantity": 1, "unit_price": 1999}],
                currency="GBP",
                payment_token="tok_approve",
            )
        assert isinstance(placed, Placed), placed
        self.run("consistency", "--wait", str(PATIENCE_S))
        shown = json.loads(self.run("query", "order", f"{name}-order", "-o", "json"))
        assert shown["user_id"] == f"{name}-0"
        assert f"{name}-order" in self.run("history", "order", f"{name}-order")

    def run(self, *arguments: str) -> str:
        """Run one command line in a process of its own; it must succeed, without a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "orderflow", *arguments],
            env={**os.environ, **self.env, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.returncode, done.stderr[-4_000:])
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def handled(self, sent: Collection[Sent], aggregate: str) -> None:
        """Assert that each record of a commands topic has an outcome, stands in the dead letters, or waits
        behind one that does.
        """
        deadline = time.monotonic() + PATIENCE_S
        while left := self._unhandled(sent, aggregate):
            assert time.monotonic() < deadline, f"nothing came of {left}"
            time.sleep(1)

    def _unhandled(self, sent: Collection[Sent], aggregate: str) -> list[Sent]:
        topics, dead_letters = self.topics, self.topics.dead_letters
        commands, outcomes = topics.commands(aggregate), topics.outcomes(aggregate)
        parked = topics.parked(aggregate)
        read = read_topics(self.settings, [commands, outcomes, parked, dead_letters])
        answered = {record.key for record in read[outcomes]}
        waiting = {(r.partition, whole_number((r.key or b"")[-18:])) for r in read[parked]}
        letters = set(_sources(read[dead_letters]))
        ids = {(r.partition, r.offset): _outcome_key(r.key, r.value) for r in read[commands]}
        return [
            one
            for one in sent
            if one not in letters
            and (one.partition, one.offset) not in waiting
            and ids.get((one.partition, one.offset)) not in answered
        ]

    def letters(self) -> set[Sent]:
        """Return the places of all records that stand in the dead letters."""
        topic = self.topics.dead_letters
        return set(_sources(read_topics(self.settings, [topic])[topic]))


def _probes(name: str) -> Iterator[OutgoingCommand]:
    for number in range(COMMANDS):
        identity = f"{name}-{number}"
        yield OutgoingCommand("user", identity, "RegisterUser", b'{"name":"P"}', identity)
    item = b'{"description":"P","opening_stock":5}'
    yield OutgoingCommand("inventory", f"{name}-sku", "RegisterItem", item, f"{name}-sku")


def _sources(records: Collection[Any]) -> Iterator[Sent]:
    """Where the records stand that dead letters are of; hostile records on the topic itself are of none."""
    for record in records:
        topic = record.headers.get(headers.ERROR_TOPIC)
        partition = whole_number(record.headers.get(headers.ERROR_PARTITION))
        offset = whole_number(record.headers.get(headers.ERROR_OFFSET))
        if topic is not None and partition is not None and offset is not None:
            yield Sent(topic.decode(errors="replace"), partition, offset)


def _outcome_key(key: bytes | None, value: bytes | None) -> bytes | None:
    try:
        command_id: str = json.loads(value or b"")["command_id"]
        return (key or b"") + b"/" + command_id.encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
