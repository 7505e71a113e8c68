"""What an idle week does to a processor: retention empties the commands, the group's offsets expire.

Where nothing was lost it goes on by itself; where commands are gone that were never decided it refuses, and
`orderflow topics offsets` says which. Each test ends with a check of all invariants of the log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from orderflow.placing import NotPlaced, OrderClient
from processors import command_processor, saga_processor
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.topics import AGGREGATES
from tests.support.commanding import command, eventually
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S

USERS = tuple(f"u{number}" for number in range(8))


class Week:
    """A command processor and a saga processor, their logs and their groups."""

    def __init__(self, env: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.env, self.directory, self._stack = env, directory, stack
        self.settings = Settings.model_validate(env)
        self.admin = AdminClient(kafka.admin(self.settings))
        self.client = stack.enter_context(CommandClient(self.settings))
        self.orders = stack.enter_context(OrderClient(self.settings))
        works = (command_processor.WORK, saga_processor.work(self.settings))
        self.groups = [work.group_id(self.settings) for work in works]
        self.commands = [
            (topics_of(self.settings).commands(name), number)
            for name in AGGREGATES
            for number in range(self.settings.partitions)
        ]
        self._started = 0

    def start(self, role: str = "commands") -> RoleProcess:
        self._started += 1
        log = self.directory / f"{role}-{self._started}.log"
        return self._stack.enter_context(RoleProcess("processors", self.env, log, role))

    def register(self, *users: str) -> None:
        for user in users:
            told = self.client.execute(command(user, "RegisterUser", name="Ada"), READY_WITHIN_S)
            assert told.accepted

    def place(self, saga_id: str) -> None:
        """Start a saga, which writes commands in a transaction: their partitions end in its markers."""
        lines = [{"sku": "none", "quantity": 1, "unit_price": 100}]
        placed = self.orders.place_order(
            saga_id, user_id="u0", lines=lines, currency="GBP", payment_token="tok_ok", timeout=60
        )
        assert isinstance(placed, NotPlaced)

    def empty_commands(self) -> None:
        """As retention does: everything, the markers of transactions included."""
        ends = kafka.end_offsets(self.admin, self.commands, 30)
        upto = [TopicPartition(*place, end) for place, end in ends.items()]
        for future in self.admin.delete_records(upto).values():
            future.result(30)

    def committed(self) -> dict[tuple[str, int], int]:
        """What the groups have committed, of the partitions where they have."""
        found: dict[tuple[str, int], int] = {}
        for group in self.groups:
            asker = kafka.group_asker(self.settings, group)
            offsets = kafka.group_offsets(asker, self.commands, 30)
            asker.close()
            found |= {place: offset for place, offset in offsets.items() if offset >= 0}
        return found

    def forget_offsets(self) -> None:
        """As the broker does when a group was empty for longer than it keeps offsets."""

        def delete() -> bool:
            for future in self.admin.delete_consumer_groups(self.groups[:1]).values():
                return future.exception(30) is None
            return False

        eventually(delete, 60, 0.5)

    def offsets(self, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["topics", "offsets", "--output", "json", *options]
        return subprocess.run(
            [sys.executable, "-m", "orderflow", *words],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def week(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[Week]:
    env = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(env))
    with ExitStack() as stack:
        yield Week(env, tmp_path, stack)


def test_retention_that_empties_the_commands_stops_nobody(week: Week) -> None:
    processor, sagas = week.start(), week.start("sagas")
    week.register(*USERS)
    week.place("o1")
    ends = kafka.end_offsets(week.admin, week.commands, 30)
    written = {place: end for place, end in ends.items() if end}

    def all_read() -> bool:
        found = week.committed()
        return all(found.get(place) == end for place, end in written.items())

    eventually(all_read, 60, 0.3)
    week.empty_commands()
    processor.kill()
    sagas.kill()
    again, sagas_again = week.start(), week.start("sagas")
    week.register("after")
    week.place("o2")
    assert again.running
    assert sagas_again.running


def test_expired_offsets_stop_nobody_when_all_was_decided(week: Week) -> None:
    processor = week.start()
    week.register(*USERS)
    assert processor.stop() == 0
    week.forget_offsets()
    week.empty_commands()
    again = week.start()
    week.register("after")
    assert again.running


def test_expired_offsets_on_a_fresh_disk_decide_nothing_twice(week: Week) -> None:
    """The commands are still there: they are read again, and recognised."""
    processor = week.start()
    week.register(*USERS)
    assert processor.stop() == 0
    week.forget_offsets()
    shutil.rmtree(week.directory / "home")
    again = week.start()
    week.register("after")
    assert again.running
    check_log(week.settings)


def send_undecided(week: Week) -> set[int]:
    """Commands that nobody decides; the partitions on which they are."""
    producer = Producer(kafka.producer(week.settings))
    topic = topics_of(week.settings).commands("user")
    before = kafka.end_offsets(week.admin, [(topic, 0), (topic, 1)], 30)
    for user in USERS:
        value = {"type": "DeactivateUser", "command_id": f"lost-{user}", "data": {"reason": "x"}}
        producer.produce(topic, json.dumps(value).encode(), user.encode())
    producer.flush(30)
    after = kafka.end_offsets(week.admin, [(topic, 0), (topic, 1)], 30)
    return {place[1] for place, end in after.items() if end > before[place]}


@pytest.mark.parametrize("expired", [False, True])
def test_commands_that_were_never_decided_are_not_passed_over_in_silence(
    week: Week, expired: bool
) -> None:
    processor = week.start()
    week.register(*USERS)
    assert processor.stop() == 0
    lost = send_undecided(week)
    if expired:
        week.forget_offsets()
    week.empty_commands()
    refusing = week.start()
    assert refusing.wait(60) == 1
    topic = topics_of(week.settings).commands("user")
    assert all(f"{topic}-{number}" in refusing.text() for number in lost)
    assert "never decided" in refusing.text()
    assert "orderflow topics offsets" in refusing.text()

    shown = week.offsets()
    assert shown.returncode == 1
    rows: list[dict[str, Any]] = json.loads(shown.stdout)
    missing = {row["partition"]: row for row in rows if row["topic"] == topic and row["problem"]}
    assert missing.keys() == lost
    for row in missing.values():
        assert row["first"] > row["decided"] > 0
        assert row["missing"] == row["first"] - row["decided"]

    assert week.offsets("--accept-loss", "--yes").returncode == 0
    assert week.offsets().returncode == 0
    again = week.start()
    week.register("after")
    assert again.running


def test_a_recreated_commands_topic_is_refused_until_its_loss_is_accepted(week: Week) -> None:
    processor = week.start()
    week.register(*USERS)
    assert processor.stop() == 0
    topic = topics_of(week.settings).commands("user")
    week.admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in week.admin.list_topics(timeout=10).topics)
    topic_admin.apply(week.settings)
    refusing = week.start()
    assert refusing.wait(60) == 1
    assert "recreated" in refusing.text()
    assert week.offsets("--accept-loss", "--yes").returncode == 0
    again = week.start()
    week.register("after")
    assert again.running
