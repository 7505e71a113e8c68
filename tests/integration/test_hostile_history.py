"""Whatever comes in on the topics that the event store reads: the index goes on and stays small, and all that
can be read is shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from eventstore import EventStore, UnreadableEvent
from eventstore.index import aside, epoch_key, worker_key
from orderflow.cli import app
from orderflow.dead_letters import Desk
from runtime import kafka, topic_admin
from runtime.embedded import ServersAddress
from runtime.redis import connect
from runtime.settings import Settings
from schemas.headers import CORRELATION_ID, ERRORS
from schemas.partitioner import partition_for
from schemas.records import EventRecord, encode
from schemas.topics import Topics
from tests.support import hostile
from tests.support.commanding import eventually
from tests.support.hostile import DEEP, MB, Hostile
from tests.support.processes import RoleProcess, environment

PATIENCE_S = 90.0
TALK: list[tuple[str, bytes | None]] = [(CORRELATION_ID, b"talk")]


class World:
    """Topics without processors: what a processor writes, the tests write."""

    def __init__(self, servers: ServersAddress, prefix: str, home: Path) -> None:
        self.env = environment(servers, prefix, home)
        self.home = home
        self.settings = Settings.model_validate(self.env)
        self.topics = Topics(prefix, self.settings.partitions)
        topic_admin.apply(self.settings)
        self.redis: Any = connect(self.settings)
        self._indexers = 0

    def put(self, topic: str, *records: Hostile) -> None:
        """Write them where the records of item A are."""
        partition = partition_for(b"A", self.settings.partitions)
        one = topic.rpartition(".")[2] in ("dead-letters", "audit")
        hostile.put(self.settings, topic, list(records), 0 if one else partition)

    def indexer(self) -> RoleProcess:
        self._indexers += 1
        return RoleProcess("eventstore", self.env, self.home / f"indexer-{self._indexers}.log")

    def index_bytes(self) -> int:
        """Memory of all keys of the index."""
        keys = self.redis.scan_iter(match=f"{epoch_key(self.settings.topic_prefix)}:*")
        return sum(int(self.redis.memory_usage(key)) for key in keys)

    def orderflow(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), env=self.env)
        assert result.exception is None or isinstance(result.exception, SystemExit), arguments
        return result


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    one = World(servers, prefix, tmp_path)
    yield one
    one.redis.close()


def event(version: int, kind: str = "StockReceived", **data: Any) -> Hostile:
    record = EventRecord(
        type=kind,
        id=f"c-{version}:0",
        version=version,
        occurred_at_ms=1_700_000_000_000 + version,
        data=msgspec.Raw(encode(data or {"quantity": 1})),
    )
    return b"A", encode(record), TALK


REGISTERED = event(1, "ItemRegistered", description="mug", low_stock_threshold=0)


def strangers() -> list[Hostile]:
    """Records on a history topic that are no event of a stream."""
    start = b'{"type":"StockReceived","id":"x","occurred_at_ms":1,'
    return [
        (b"A", b'{"version":0}', TALK),
        *(
            (key, start + b'"version":' + version + b',"data":{"quantity":1}}', TALK)
            for key in (b"A", b"B")
            for version in (b"0", b"-1", b"9" * 15, b"9" * 400, b"1e999", b"1.5", b"5")
        ),
        (b"A", start + b'"version":1,"data":{"quantity":1}}', TALK),
        (b"A", DEEP, TALK),
        (b"A", start + b'"version":2,"data":' + DEEP + b"}", TALK),
        (b"A", b"x" * 9 * MB, TALK),
        (b"A", b"\xff\x00", [(CORRELATION_ID, b"y" * 9 * MB)]),
        (b"A", None, TALK),
        (None, start + b'"version":1}', TALK),
        (b"\xff", start + b'"version":1}', TALK),
        (b"k" * 2 * MB, start + b'"version":1}', TALK),
    ]


def count_aside(world: World) -> int:
    return len(aside(world.settings))


def test_the_index_goes_on_and_stays_small_and_the_true_history_is_shown(world: World) -> None:
    topic = world.topics.history("inventory")
    others = strangers()
    with world.indexer() as indexer, EventStore(world.settings) as store:
        world.put(topic, REGISTERED, event(2))
        eventually(lambda: store.version("inventory/A") == 2, PATIENCE_S)
        world.put(topic, *others)
        if shutil.which("kcat"):
            hostile.put_with_unreadable_header_name(
                world.settings, topic, "A", b"no event", partition_for(b"A", 2)
            )
            others = [*others, (b"A", b"no event", [])]
        world.put(topic, event(3))
        eventually(lambda: store.version("inventory/A") == 3, PATIENCE_S)
        eventually(lambda: count_aside(world) == len(others), PATIENCE_S)
        assert indexer.running
        indexer.kill()
    assert world.index_bytes() < 100_000
    with world.indexer() as indexer, EventStore(world.settings) as store:
        world.put(topic, event(4))
        eventually(lambda: store.version("inventory/A") == 4, PATIENCE_S)
        assert [one.version for one in store.get_stream("inventory/A")] == [1, 2, 3, 4]
        assert store.version("inventory/B") == 0
        told = [one.version for one in store.conversation("talk") if one.stream.id == "A"]
        assert [version for version in told if version != 5] == [
            1,
            1,
            2,
            3,
            4,
        ]  # two claim to be the first
        assert {1, 2, 3, 4} <= {one.version for one in store.replay(["inventory"])}
        assert indexer.running


def test_an_event_that_cannot_be_read_is_shown_in_its_place(world: World) -> None:
    newer = event(2)[1]
    assert newer is not None
    newer = newer.replace(b'"version":2', b'"version":2,"schema_version":9', 1)
    world.put(world.topics.history("inventory"), REGISTERED, (b"A", newer, TALK), event(3))
    with EventStore(world.settings) as store:
        entries, state = store.history("inventory/A")
        assert [entry.code for entry in entries] == [None, "unreadable", None]
        assert state.version == 1
        with pytest.raises(UnreadableEvent, match="is not known here"):
            store.get_stream("inventory/A")
    shown = world.orderflow("history", "inventory", "A")
    assert shown.exit_code == 0
    assert "unreadable" in shown.output


def test_tombstones_and_garbage_on_topics_of_states_stop_no_command(world: World) -> None:
    start = b'{"type":"X","id":"a","version":1,"occurred_at_ms":1,'
    garbage: list[Hostile] = [
        (b"A", None, []),
        (b"A", b"garbage", []),
        (b"A", start + b'"state":' + DEEP + b"}", []),
        (b"A", start + b'"subject_key":"no base64!","state":{}}', []),
        (b"\xff", b"garbage", []),
    ]
    for aggregate in ("user", "webhook", "saga", "order"):
        world.put(world.topics.events(aggregate), *garbage)
        world.put(world.topics.parked(aggregate), *garbage)
        world.put(world.topics.commands(aggregate), *garbage, (b"A", DEEP, TALK))
        world.put(world.topics.outcomes(aggregate), *garbage, (b"A/c", DEEP, TALK))
    forged: list[tuple[str, bytes | None]] = [
        (f"{ERRORS}{name}", value)
        for name in ("timestamp", "partition", "offset", "attempt")
        for value in (b"9" * 5_000, "²".encode())
    ]
    commands = (f"{ERRORS}topic", world.topics.commands("user").encode())
    world.put(
        world.topics.dead_letters,
        (None, None, []),
        (b"A", b"x" * 9 * MB, [*forged, *TALK]),
        (b"A", b"x", [*forged, commands, (f"{ERRORS}holds-key", b"true"), *TALK]),
    )
    world.put(world.topics.audit, (b"A", b"garbage", TALK), (b"A", DEEP, TALK), (None, None, []))
    world.put(world.topics.history("user"), (b"A", b"no event", TALK))
    assert len(Desk(world.settings).letters()) >= 2
    for command in (
        ["webhooks", "list"],
        ["dead-letters", "list"],
        ["history", "user", "A"],
        ["history", "--correlation", "talk"],
        ["doctor"],
    ):
        world.orderflow(*command)
    assert "no event" in world.orderflow("doctor").output


def test_an_indexer_ends_when_a_topic_is_made_anew_and_the_next_one_begins_again(
    world: World,
) -> None:
    topic = world.topics.history("inventory")
    with world.indexer() as indexer, EventStore(world.settings) as store:
        world.put(topic, REGISTERED, event(2))
        eventually(lambda: store.version("inventory/A") == 2, PATIENCE_S)
        eventually(lambda: world.redis.exists(worker_key(world.settings.topic_prefix)), PATIENCE_S)
        client = AdminClient(kafka.admin(world.settings))
        for future in client.delete_topics([topic], operation_timeout=30).values():
            future.result()
        eventually(lambda: topic not in client.list_topics(timeout=10).topics, PATIENCE_S)
        topic_admin.apply(world.settings)
        assert indexer.wait(PATIENCE_S) == 1
        assert "was deleted" in indexer.text()
    with world.indexer(), EventStore(world.settings) as store:
        world.put(topic, REGISTERED)
        eventually(lambda: store.version("inventory/A") == 1, PATIENCE_S)
