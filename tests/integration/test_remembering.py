"""What is remembered of commands, on a real broker: for as long as their outcomes stand, on any disk."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for
from schemas.rejections import Code
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment
from tests.support.topics import read_topic

YEAR_MS = 365 * 24 * 3_600_000


@pytest.fixture
def own_env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    """Topics of the test's own, made here."""
    env = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(env))
    return env


@pytest.fixture
def own_settings(own_env: dict[str, str]) -> Settings:
    return Settings.model_validate(own_env)


def expire(settings: Settings, user_id: str) -> None:
    """What retention does: the outcomes topic begins after everything there is on a user's partition."""
    admin = AdminClient(kafka.admin(settings))
    partition = partition_for(user_id.encode(), settings.partitions)
    place = topics_of(settings).outcomes("user"), partition
    (end,) = kafka.end_offsets(admin, [place], 30).values()
    for future in admin.delete_records([TopicPartition(*place, end)]).values():
        future.result()


def same_partition(settings: Settings, user_id: str) -> str:
    wanted = partition_for(user_id.encode(), settings.partitions)
    ids = (f"{user_id}{n}" for n in range(1_000))
    return next(i for i in ids if partition_for(i.encode(), settings.partitions) == wanted)


def test_an_old_disk_and_a_fresh_one_remember_the_same_commands(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    """After an outage in which some outcomes expired: the topic says what is remembered, no clock."""
    bob = same_partition(own_settings, "ada")
    early = command("ada", "RegisterUser", name="Ada")
    late = command(bob, "RegisterUser", name="Bob")
    with CommandClient(own_settings) as client:
        with RoleProcess("processors", own_env, tmp_path / "1.log"):
            assert client.execute(early).accepted
        expire(own_settings, "ada")
        with RoleProcess("processors", own_env, tmp_path / "2.log"):
            assert client.execute(late).accepted
        for disk in ("old", "fresh"):
            if disk == "fresh":
                shutil.rmtree(own_settings.home)
            with RoleProcess("processors", own_env, tmp_path / f"{disk}.log"):
                again = client.execute(late)
                assert again.accepted, f"a command is forgotten on the {disk} disk"
                assert again.version == 1
        # The first one's outcome was deleted: both disks had forgotten it, and the aggregate refuses it.
        with RoleProcess("processors", own_env, tmp_path / "3.log"):
            assert client.execute(early).code is Code.USER_ALREADY_REGISTERED
    events = read_topic(own_settings, topics_of(own_settings).history("user"))
    assert sorted(record.key or b"" for record in events) == sorted([b"ada", bob.encode()])


def test_a_repetition_that_waited_in_the_log_is_recognised_on_a_fresh_disk(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    item = command("mug", "ReceiveStock", quantity=3)
    with CommandClient(own_settings) as client:
        with RoleProcess("processors", own_env, tmp_path / "1.log"):
            assert client.execute(
                command("mug", "RegisterItem", description="mug", opening_stock=1)
            ).accepted
            assert client.execute(item).accepted
        client.send(item)
        client.flush()
        shutil.rmtree(own_settings.home)
        with RoleProcess("processors", own_env, tmp_path / "2.log"):
            assert client.execute(command("mug", "ReceiveStock", quantity=1)).version == 4
    history = read_topic(own_settings, topics_of(own_settings).history("inventory"))
    assert len(history) == 4


def test_the_time_a_sender_sets_changes_no_records_life(own_settings: Settings) -> None:
    """Retention goes by the broker's time: a record from the past is not deleted before it is decided, and
    one from the future does not keep its segment.
    """
    producer = Producer(kafka.producer(own_settings))
    topic, now = topics_of(own_settings).commands("user"), time.time_ns() // 1_000_000
    for moment in (now - 15 * YEAR_MS, now - 1, now + 15 * YEAR_MS):
        producer.produce(topic, b"{}", b"ada", timestamp=moment)
    assert producer.flush(20) == 0

    def dated() -> list[int]:
        return [record.timestamp_ms for record in read_topic(own_settings, topic)]

    eventually(lambda: len(dated()) == 3)
    assert all(abs(moment - now) < 3_600_000 for moment in dated())
