"""The event store on a real broker and a real Redis: appends, reads, states of the past, replay, audit."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore import (
    BEGINNING,
    AppendRefused,
    ConcurrencyConflict,
    EntryKind,
    EventStore,
    HistoryIncomplete,
    IndexIncomplete,
    NewEvent,
    Position,
    Projection,
    ProjectionExists,
    RecordedEvent,
    StreamHasDecider,
    StreamNotFound,
    UnknownProjection,
    UnknownStream,
    VersionNotFound,
)
from eventstore.index import ENTRY_BYTES, epoch_key
from readmodels import Progress
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedRedis, ServersAddress
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.inventory import StockLevel
from schemas.partitioner import partition_for
from schemas.rejections import Code
from schemas.user import UserState, UserStatus
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment


@dataclass(frozen=True)
class World:
    settings: Settings
    client: CommandClient
    store: EventStore
    env: dict[str, str]


@pytest.fixture(scope="module")
def world(servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One processor for all tests; each uses streams of its own."""
    folder = tmp_path_factory.mktemp("store")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with (
        RoleProcess("processors", env, folder / "processor.log", "commands"),
        CommandClient(settings) as client,
        EventStore(settings) as store,
    ):
        yield World(settings, client, store, env)


@pytest.fixture
def store(world: World) -> EventStore:
    return world.store


@pytest.fixture
def a() -> str:
    """An id that no other test uses."""
    return uuid.uuid4().hex


def note(text: str) -> NewEvent:
    return NewEvent("Noted", {"text": text})


def reads(events: tuple[RecordedEvent, ...]) -> list[tuple[int, str, object]]:
    return [(event.version, event.type, event.json) for event in events]


def test_what_is_appended_is_read_back_in_order(store: EventStore, a: str) -> None:
    stream = f"stream/{a}"
    assert store.append(stream, [note("one"), note("two")], expected_version=0) == 2
    assert (
        store.append(stream, [NewEvent("Closed")], expected_version=2, correlation_id="talk") == 3
    )
    assert reads(store.get_stream(stream)) == [
        (1, "Noted", {"text": "one"}),
        (2, "Noted", {"text": "two"}),
        (3, "Closed", {}),
    ]
    assert reads(store.get_stream(stream, 2, 2)) == [(2, "Noted", {"text": "two"})]
    assert [event.version for event in store.get_stream(stream, 2)] == [2, 3]
    last = store.get_stream(stream)[-1]
    assert (last.correlation_id, last.id) == ("talk", f"{last.command_id}:0")
    assert store.version(stream) == 3


def test_a_writer_that_expected_another_version_is_told_which_it_is(
    store: EventStore, a: str
) -> None:
    stream = f"stream/{a}"
    store.append(stream, [note("one")], expected_version=0)
    with pytest.raises(
        ConcurrencyConflict, match="was expected at version 0, but stands at 1"
    ) as told:
        store.append(stream, [note("other")], expected_version=0)
    assert (told.value.code, told.value.expected, told.value.actual) == (
        "concurrency_conflict",
        0,
        1,
    )
    assert store.append(stream, [note("two")], expected_version=None) == 2
    assert [event.json["text"] for event in store.get_stream(stream)] == ["one", "two"]


def test_of_many_writers_at_once_each_version_has_exactly_one(world: World, a: str) -> None:
    stream = f"stream/{a}"
    conflicts: Counter[int] = Counter()

    def write(writer: int) -> None:
        with EventStore(world.settings) as store:
            written = 0
            while written < 5:
                version = store.version(stream)
                try:
                    store.append(stream, [note(f"{writer}-{written}")], expected_version=version)
                    written += 1
                except ConcurrencyConflict as conflict:
                    conflicts[writer] += conflict.actual > version

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    events = world.store.get_stream(stream)
    assert [event.version for event in events] == list(range(1, 21))
    texts = [event.json["text"] for event in events]
    assert sorted(texts) == [f"{writer}-{n}" for writer in range(4) for n in range(5)]
    assert conflicts.total(), "nobody was ever in anybody's way: the test tested nothing"


def test_the_same_append_twice_appends_once(store: EventStore, a: str) -> None:
    stream = f"stream/{a}"
    for _ in range(2):
        assert store.append(stream, [note("one")], expected_version=0, append_id="first") == 1
    assert store.version(stream) == 1


def test_what_cannot_be_appended_is_refused_with_a_code(store: EventStore, a: str) -> None:
    with pytest.raises(StreamHasDecider, match="send its commands instead") as decided:
        store.append(f"order/{a}", [note("one")], expected_version=0)
    assert decided.value.code == "stream_has_decider"
    with pytest.raises(AppendRefused) as refused:
        store.append(f"stream/{a}", [NewEvent("not a type", {})], expected_version=0)
    assert (refused.value.code, refused.value.rejection) == ("append_refused", Code.INVALID_DATA)
    with pytest.raises(AppendRefused):
        store.append(f"stream/{a}", [], expected_version=0)
    for text in ("nothing", "bill/b-1", f"stream/{a}/b", "stream/"):
        with pytest.raises(UnknownStream):
            store.append(text, [note("one")], expected_version=0)
    assert store.version(f"stream/{a}") == 0


def test_an_unknown_stream_is_empty_and_versions_that_cannot_be_are_refused(
    store: EventStore, a: str
) -> None:
    assert store.get_stream(f"user/{a}") == ()
    for first, last in ((0, None), (2, 1), (-1, 3)):
        with pytest.raises(VersionNotFound):
            store.get_stream(f"user/{a}", first, last)


def test_a_state_of_the_past_by_version_and_by_time(world: World, a: str) -> None:
    stream = f"user/{a}"
    world.client.execute(command(a, "RegisterUser", name="Ada"))
    world.client.execute(command(a, "DeactivateUser", reason="left"))
    first, second = world.store.get_stream(stream)
    before = world.store.state_at(stream, version=1)
    now = world.store.state_at(stream)
    assert isinstance(before.state, UserState)
    assert (before.version, before.state.status) == (1, UserStatus.ACTIVE)
    assert (now.version, now.state.status) == (2, UserStatus.DEACTIVATED)
    assert world.store.state_at(stream, at_ms=first.occurred_at_ms).version == (
        1 if second.occurred_at_ms > first.occurred_at_ms else 2
    )
    assert world.store.state_at(stream, at_ms=second.occurred_at_ms) == now
    with pytest.raises(VersionNotFound, match="had not begun"):
        world.store.state_at(stream, at_ms=first.occurred_at_ms - 1)
    with pytest.raises(VersionNotFound, match="no version 3; it stands at 2"):
        world.store.state_at(stream, version=3)
    with pytest.raises(StreamNotFound):
        world.store.state_at(f"user/{a}-other")


def test_a_state_has_the_parts_that_are_open(world: World, a: str) -> None:
    world.client.execute(command(a, "RegisterItem", description="mug", opening_stock=5))
    world.client.execute(command(a, "ReserveStock", reservation_id="o1", quantity=2))
    world.client.execute(command(a, "ReserveStock", reservation_id="o2", quantity=1))
    world.client.execute(command(a, "ReleaseReservation", reservation_id="o1"))
    state = world.store.state_at(f"inventory/{a}")
    assert isinstance(state.state, StockLevel)
    assert (state.state.reserved, list(state.parts)) == (1, ["o2"])
    assert list(world.store.state_at(f"inventory/{a}", version=4).parts) == ["o1", "o2"]


def test_a_timeline_says_what_each_event_changed_and_what_was_refused_between(
    world: World, a: str
) -> None:
    world.client.execute(command(a, "RegisterItem", description="mug", opening_stock=5))
    world.client.execute(command(a, "ReserveStock", reservation_id="o1", quantity=9))
    world.client.execute(command(a, "ReceiveStock", quantity=7))
    found = world.store.timeline(f"inventory/{a}")
    assert [(entry.type, entry.code) for entry in found] == [
        ("ItemRegistered", None),
        ("StockReceived", None),
        ("ReserveStock", "insufficient_stock"),
        ("StockReceived", None),
    ]
    changed = {change.field: (change.before, change.after) for change in found[-1].changes}
    assert changed["on_hand"] == (5, 12)
    assert "description" not in changed
    upto = world.store.timeline(f"inventory/{a}", version=1)
    assert [entry.type for entry in upto] == ["ItemRegistered"]


def test_a_conversation_is_found_over_all_aggregates(world: World, a: str) -> None:
    for one in (
        command(a, "RegisterUser", name="Ada"),
        command(a, "RegisterItem", description="mug", opening_stock=1),
        command(a, "ReserveStock", reservation_id="o1", quantity=9),
    ):
        world.client.execute(replace(one, correlation_id=a))
    found = world.store.conversation(a)
    assert [(e.kind, e.stream.aggregate, e.type, e.code) for e in found] == [
        (EntryKind.COMMAND, "user", "RegisterUser", None),
        (EntryKind.EVENT, "user", "UserRegistered", None),
        (EntryKind.COMMAND, "inventory", "RegisterItem", None),
        (EntryKind.EVENT, "inventory", "ItemRegistered", None),
        (EntryKind.EVENT, "inventory", "StockReceived", None),
        (EntryKind.COMMAND, "inventory", "ReserveStock", "insufficient_stock"),
    ]
    assert found[2].data == {"description": "mug", "opening_stock": 1}
    assert world.store.conversation(f"{a}-other") == ()


def test_replay_gives_every_event_once_and_versions_in_order(world: World, a: str) -> None:
    for number in range(20):
        world.store.append(f"stream/{a}-{number}", [note("x"), note("y")], expected_version=0)
    told: list[Progress] = []
    events = list(world.store.replay(on_progress=told.append))
    assert (told[-1].done, told[-1].total) == (told[-1].total, told[-1].total)
    seen: dict[str, int] = {}
    for event in events:
        assert event.version == seen.get(str(event.stream), 0) + 1
        seen[str(event.stream)] = event.version
    assert all(seen[f"stream/{a}-{number}"] == 2 for number in range(20))
    only = {event.stream.aggregate for event in world.store.replay(("stream",))}
    assert only == {"stream"}
    with pytest.raises(UnknownStream):
        world.store.replay(("bill",))


def test_a_subscription_goes_on_where_its_position_says_and_gets_what_comes_later(
    world: World, a: str
) -> None:
    world.store.append(f"stream/{a}", [note("0"), note("1"), note("2")], expected_version=0)
    with world.store.subscribe(("stream",), patience_s=5) as first:
        mine = (event for event in first if event.stream.id == a)
        assert [next(mine).version for _ in range(2)] == [1, 2]
        position = Position.parse(str(first.position))
    later: list[int] = []
    second = world.store.subscribe(("stream",), position)

    def read() -> None:
        later.extend(event.version for event in second if event.stream.id == a)

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: later == [3])
    world.store.append(f"stream/{a}", [note("3")], expected_version=3)
    eventually(lambda: later == [3, 4])
    second.close()
    reader.join(10)
    assert not reader.is_alive()


def test_a_projection_counts_each_event_once_over_restarts_and_begins_anew_when_told(
    world: World, a: str
) -> None:
    shown: list[str] = []

    def count(state: int, event: RecordedEvent) -> int:
        shown.append(event.id)
        return state + (event.stream.id == a)

    counted = Projection(f"count-{a}", ("stream",), 0, count, int, frozenset({"Noted"}))
    world.store.append(f"stream/{a}", [note("1"), NewEvent("Other"), note("2")], expected_version=0)
    world.store.register(counted)
    assert world.store.project(counted.name) == 2
    before = len(shown)
    with EventStore(world.settings) as another:
        another.register(counted)
        world.store.append(f"stream/{a}", [note("3")], expected_version=3)
        assert another.project(counted.name) == 3
        assert len(shown) == before + 1, "it read again what it had counted"
        another.reset(counted.name)
        assert another.project(counted.name) == 3
        assert len(shown) > before + 2
        with pytest.raises(ProjectionExists):
            another.register(counted)
        with pytest.raises(UnknownProjection):
            another.project("other")
        with pytest.raises(UnknownStream):
            another.register(replace(counted, name="bills", aggregates=("bill",)))


def test_a_lost_index_is_built_again(world: World, a: str) -> None:
    world.store.append(f"stream/{a}", [note("1"), note("2")], expected_version=0)
    assert world.store.version(f"stream/{a}") == 2
    with closing(connect(world.settings)) as redis:
        for key in redis.scan_iter(match=f"{epoch_key(world.settings.topic_prefix)}*"):
            redis.delete(key)
    told: list[Progress] = []
    with EventStore(world.settings, told.append) as store:
        assert [event.json["text"] for event in store.get_stream(f"stream/{a}")] == ["1", "2"]
    assert told
    assert told[-1].done == told[-1].total > 0
    assert len(world.store.get_stream(f"stream/{a}")) == 2


def test_part_of_an_index_that_is_missing_is_noticed(world: World, a: str) -> None:
    stream = f"stream/{a}"
    world.store.append(stream, [note("1"), note("2")], expected_version=0)
    assert world.store.version(stream) == 2
    with closing(connect(world.settings)) as redis:
        (key,) = redis.scan_iter(match=f"*:stream:*:{a}")
        redis.setrange(key, 0, bytes(ENTRY_BYTES))
    with pytest.raises(IndexIncomplete, match="--rebuild"):
        world.store.get_stream(stream)


def test_a_worker_keeps_the_index_up_to_date_through_a_lost_redis(
    servers: ServersAddress, own_redis: EmbeddedRedis, prefix: str, tmp_path: Path
) -> None:
    env = environment(servers, prefix, tmp_path / "home") | {"REDIS_URL": own_redis.url}
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with (
        RoleProcess("processors", env, tmp_path / "processor.log", "commands"),
        RoleProcess("eventstore", env, tmp_path / "indexer.log") as worker,
        EventStore(settings) as store,
    ):

        def indexed(version: int) -> bool:
            assert worker.running, worker.text()
            with closing(connect(settings)) as redis:
                # Of an older epoch a key may have come back.
                epoch = str(redis.get(epoch_key(prefix)))
                found = list(redis.scan_iter(match=f"{epoch_key(prefix)}:{epoch}:stream:*:s"))
                return bool(found) and redis.strlen(found[0]) == ENTRY_BYTES * version

        store.append("stream/s", [note("1")], expected_version=0)
        eventually(lambda: indexed(1))
        with closing(connect(settings)) as redis:
            redis.flushall()
        store.append("stream/s", [note("2")], expected_version=1)
        eventually(lambda: indexed(2))
        own_redis.kill()
        own_redis.start()
        store.append("stream/s", [note("3")], expected_version=2)
        eventually(lambda: indexed(3))
        assert worker.stop() == 0
        assert [event.version for event in store.get_stream("stream/s")] == [1, 2, 3]


def test_records_deleted_from_a_history_are_missed_and_not_passed_over(
    servers: ServersAddress, world: World, prefix: str, tmp_path: Path
) -> None:
    env = environment(servers, prefix, tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with (
        RoleProcess("processors", env, tmp_path / "processor.log", "commands"),
        EventStore(settings) as store,
    ):
        store.append("stream/s", [note("1")], expected_version=0)
        store.append("stream/s", [note("2")], expected_version=1)
        first, second = store.get_stream("stream/s")
        topic = topics_of(settings).history("stream")
        admin = AdminClient(kafka.admin(settings))
        cut = TopicPartition(topic, first.partition, second.offset)
        for future in admin.delete_records([cut]).values():
            future.result()
        with pytest.raises(HistoryIncomplete, match=f"no record at offset {first.offset} any more"):
            store.get_stream("stream/s")
        assert [event.version for event in store.get_stream("stream/s", 2)] == [2]


def test_events_of_a_transaction_that_was_aborted_are_in_no_stream(world: World, a: str) -> None:
    settings = world.settings
    topic = topics_of(settings).history("stream")
    partition = partition_for(a.encode(), settings.partitions)
    producer = Producer(kafka.transactional_producer(settings, f"{settings.topic_prefix}.test"))
    producer.init_transactions(30)
    producer.begin_transaction()
    value = b'{"type":"Appended","id":"x:0","version":1,"occurred_at_ms":1,"data":{"type":"No","data":{}}}'
    producer.produce(topic, value, a.encode(), partition)
    producer.flush(10)
    producer.abort_transaction(30)
    assert world.store.get_stream(f"stream/{a}") == ()
    assert a not in {event.stream.id for event in world.store.replay(("stream",), BEGINNING)}
    assert world.store.append(f"stream/{a}", [note("yes")], expected_version=0) == 1
    assert reads(world.store.get_stream(f"stream/{a}")) == [(1, "Noted", {"text": "yes"})]
