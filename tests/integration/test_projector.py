"""Projectors as real processes, on a real Kafka and Redis: what reaches the views, and what never does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.cli.output import plain
from readmodels import AsyncQueries, Plan, RebuildRunning, ViewTimeout, rebuild, staging
from readmodels.views import VIEWS
from runtime import kafka, topic_admin
from runtime.embedded import EmbeddedKafka, EmbeddedRedis, ServersAddress
from runtime.topic_admin import TopicState
from schemas import headers
from schemas.order import OrderStatus
from schemas.saga import SagaStatus
from tests.support import events
from tests.support.commanding import eventually
from tests.support.compaction import compact
from tests.support.events import EventProducer
from tests.support.processes import RoleProcess, environment
from tests.support.projecting import World, life
from tests.support.topics import read_topic
from tests.support.views import live_content


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    one = World(servers, prefix, tmp_path)
    yield one
    one.close()


@pytest.fixture
def flushable(
    servers: ServersAddress, own_redis: EmbeddedRedis, prefix: str, tmp_path: Path
) -> Iterator[World]:
    """With a Redis of its own."""
    own = ServersAddress(servers.bootstrap_servers, own_redis.url)
    one = World(own, prefix, tmp_path)
    yield one
    one.close()


def test_views_follow_the_topics_to_their_very_ends(world: World) -> None:
    world.commit(*life(60))
    with world.projector() as projector:
        world.check()
        world.commit(events.tombstone("order", "o-1", 9), events.tombstone("inventory", "s-1", 9))
        world.commit(events.tombstone("user", "u-1", 99))
        world.check()
        assert world.queries.order("o-1") is None
        assert world.queries.stock("s-1") is None
        assert projector.stop() == 0
    assert "Traceback" not in projector.text()


def test_an_aborted_transaction_reaches_no_view(world: World) -> None:
    world.commit(events.order("o-1", 1))
    with world.projector():
        world.producer.abort([events.order("o-1", 2, status=OrderStatus.CANCELLED)])
        world.producer.abort([events.order("o-2", 1)])
        world.commit(events.order("o-3", 1))
        world.check()
        assert world.queries.order("o-2") is None


def test_a_transaction_that_is_open_is_waited_for(world: World) -> None:
    writer = EventProducer(world.settings, "other")
    with world.projector():
        writer.leave_open([events.order("o-1", 1)])
        time.sleep(1.0)
        assert world.queries.order("o-1") is None
        writer.commit_open()
        world.written.append(events.order("o-1", 1))
        world.check()


def test_what_no_view_can_read_goes_to_the_dead_letters_untouched(world: World) -> None:
    topic = world.producer.topics.events("order")
    newer = events.order("o-9", 1).value
    assert newer is not None
    poison = {
        b"o-1": b"\xff\x00 not json",
        b"o-2": b'{"type":"OrderCreated","id":"x","version":1,"occurred_at_ms":1}',
        b"o-3": events.stock("o-3", 1).value,
        b"o-4": newer.replace(b'"version":1', b'"version":1,"state_version":99', 1),
        b"bad{id}": newer,
        b"\xff": newer,
    }
    plain = Producer(kafka.producer(world.settings))
    for key, value in poison.items():
        plain.produce(topic, key=key, value=value, headers=[("mine", b"\x01")], partition=0)
    assert plain.flush(10) == 0
    world.commit(*life(10, start=10))
    with world.projector():
        world.check()
        letters = read_topic(world.settings, world.producer.topics.dead_letters)
    assert {letter.key: letter.value for letter in letters} == poison
    by_key = {letter.key: letter.headers for letter in letters}
    assert by_key[b"o-1"]["mine"] == b"\x01"
    assert by_key[b"o-1"][headers.ERROR_CODE] == b"malformed"
    assert by_key[b"o-1"][headers.ERROR_TOPIC] == topic.encode()
    assert by_key[b"o-1"][headers.ERROR_OFFSET] == b"0"
    assert by_key[b"o-4"][headers.ERROR_CODE] == b"unsupported_schema_version"
    assert by_key[b"bad{id}"][headers.ERROR_CODE] == b"invalid_key"


@pytest.mark.fault
def test_a_killed_projector_goes_on_where_redis_is(world: World) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            world.commit(*life(20, start=number))
            number += 20
            time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            with world.projector() as projector:
                eventually(lambda: "projector is running" in projector.text())
                time.sleep(0.7)
                projector.kill()
    finally:
        stop.set()
        writer.join()
    with world.projector():
        world.check()


@pytest.mark.fault
def test_a_flushed_redis_heals_while_nothing_arrives(flushable: World) -> None:
    flushable.commit(*life(80))
    with flushable.projector():
        flushable.check()
        flushable.client.flushall()
        flushable.check()


@pytest.mark.fault
def test_a_flushed_redis_heals_in_mid_stream(flushable: World) -> None:
    with flushable.projector():
        for round_ in range(30):
            flushable.commit(*life(20, start=round_ * 20))
            if round_ % 10 == 5:
                flushable.client.flushall()
        flushable.check()


@pytest.mark.fault
def test_a_redis_that_is_away_is_waited_for(flushable: World, own_redis: EmbeddedRedis) -> None:
    with flushable.projector() as projector:
        flushable.commit(*life(20))
        flushable.check()
        own_redis.kill()
        flushable.commit(*life(20, start=20))
        time.sleep(3.0)
        assert projector.running
        own_redis.start()
        flushable.check()
        assert projector.text().count("trying again until it works") < 30


@pytest.mark.fault
def test_a_broker_that_is_killed_is_waited_for(
    servers: ServersAddress, own_kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    world = World(ServersAddress(own_kafka.bootstrap_servers, servers.redis_url), prefix, tmp_path)
    with world.projector() as projector:
        world.commit(*life(20))
        world.check()
        own_kafka.kill()
        time.sleep(2.0)
        own_kafka.start()
        world.producer = EventProducer(world.settings)
        world.commit(*life(20, start=20))
        world.check()
        assert projector.stop() == 0
    world.close()


@pytest.mark.fault
def test_a_full_redis_loses_nothing(flushable: World) -> None:
    with flushable.projector() as projector:
        flushable.commit(*life(20))
        flushable.check()
        used = int(flushable.client.info("memory")["used_memory"])
        flushable.client.config_set("maxmemory", used // 2)
        flushable.commit(*life(40, start=20))
        eventually(lambda: "OutOfMemoryError" in projector.text())
        assert not flushable.caught_up()
        flushable.client.config_set("maxmemory", 0)
        flushable.check()


@pytest.mark.fault
def test_projectors_come_and_go(world: World) -> None:
    with world.projector() as first:
        world.commit(*life(40))
        world.check()
        with world.projector() as second:
            eventually(lambda: "projector is running" in second.text())
            for round_ in range(10):
                world.commit(*life(20, start=40 + round_ * 20))
            world.check()
            assert first.stop() == 0
            world.commit(*life(40, start=240))
            world.check()
        with world.projector():
            world.commit(*life(40, start=280))
            world.check()


@pytest.mark.fault
def test_a_suspended_projector_does_no_harm_when_it_wakes(world: World) -> None:
    with world.projector() as first:
        world.commit(*life(40))
        world.check()
        writer = threading.Thread(target=lambda: world.commit(*life(200, start=40)))
        writer.start()
        time.sleep(0.05)
        first.suspend()
        writer.join()
        with world.projector():
            world.check()  # after the session of the first has timed out
            world.commit(*[events.tombstone("order", f"o-{n}", 9) for n in range(40, 60)])
            world.check()
            first.resume()
            time.sleep(2.0)
            world.check()


def test_a_rebuild_from_a_compacted_topic_equals_the_live_view(world: World) -> None:
    world.commit(*life(60))
    world.commit(*[events.tombstone("order", f"o-{n}", 9) for n in range(0, 60, 7)])
    with world.projector():
        world.check()
        for aggregate in ("order", "inventory", "user", "saga"):
            compact(world.settings, world.producer.topics.events(aggregate))
        before = {
            view.name: live_content(world.client, world.settings, view.name) for view in VIEWS
        }

        report = rebuild(world.settings)

        assert report.equal
        assert all(not one.comparison.skipped for one in report.views)
        assert sum(one.comparison.compared for one in report.views) > 100
        assert [one.new_generation for one in report.views] == [2] * len(VIEWS)
        after = {view.name: live_content(world.client, world.settings, view.name) for view in VIEWS}
        assert after == before
        world.commit(*life(40, start=60))
        world.check()


def test_a_rebuild_while_events_arrive(world: World) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            world.commit(*life(20, start=number))
            number += 20
            time.sleep(0.02)

    with world.projector():
        writer = threading.Thread(target=write)
        writer.start()
        try:
            time.sleep(1.0)
            reports = [rebuild(world.settings), rebuild(world.settings, ["orders"])]
        finally:
            stop.set()
            writer.join()
        assert [report.equal for report in reports] == [True, True]
        world.check()


def test_a_rebuild_finds_and_mends_what_somebody_has_broken(world: World) -> None:
    world.commit(*life(30))
    with world.projector():
        world.check()
        key = next(world.client.scan_iter(match=f"{world.settings.topic_prefix}:orders:*:user:u-1"))
        world.client.hset(key, "orders", 999)

        report = rebuild(world.settings, ["orders"])

        (orders,) = report.views
        assert not report.switched
        assert orders.comparison.differences == 1
        (difference,) = orders.comparison.differing
        assert difference.key.endswith(":user:u-1")
        assert isinstance(difference.live, dict)
        assert isinstance(difference.rebuilt, dict)
        assert difference.live == {**difference.rebuilt, "orders": "999"}
        assert rebuild(world.settings, ["orders"], plan=Plan(accept_differences=True)).switched
        world.check()


def test_a_rebuild_without_anything_to_compare_with(world: World) -> None:
    world.commit(*life(30))
    report = rebuild(world.settings)
    assert all("nothing to compare" in one.comparison.skipped for one in report.views)
    world.check()


@pytest.mark.fault
def test_a_killed_rebuild_leaves_the_old_views_serving(world: World) -> None:
    world.commit(*life(300))
    script = world.home / "slow_rebuild.py"
    script.write_text(
        "import time\n"
        "from readmodels import filling, rebuild\n"
        "from runtime.settings import Settings\n"
        "filling.BATCH_RECORDS = 50\n"
        "filling.PROGRESS_EVERY_S = 0.0\n"
        "def slowly(progress):\n"
        "    print('at', progress.done, flush=True)\n"
        "    time.sleep(0.2)\n"
        "rebuild(Settings(), on_progress=slowly)\n"
    )
    env = {**world.env, "PYTHONPATH": f"{world.home}:{Path.cwd()}"}
    with world.projector():
        world.check()
        with RoleProcess("slow_rebuild", env, world.home / "rebuild.log") as process:
            eventually(lambda: process.text().count("at ") > 3)
            with pytest.raises(RebuildRunning, match="another rebuild runs"):
                rebuild(world.settings)
            process.kill()
        assert list(world.client.scan_iter(match=f"{world.settings.topic_prefix}:orders:g2:*"))
        world.check()
        world.client.delete(f"{world.settings.topic_prefix}:rebuild")  # or half a minute later

        report = rebuild(world.settings)

        assert report.equal
        assert [one.new_generation for one in report.views] == [2] * len(VIEWS)
        assert all(one.resumed for one in report.views)
        assert report.records < len(world.written) + 100, "it began at offset zero again"
        world.check()


def test_read_your_own_writes(world: World) -> None:
    with world.projector():
        world.commit(events.order("o-1", 1), events.stock("s-1", 1), events.user("u-1", 1))
        assert world.queries.wait_for("orders", "o-1", 1) == 1
        assert world.queries.wait_for("stock", "s-1", 1) == 1
        world.commit(events.order("o-1", 2), events.tombstone("user", "u-1", 2))

        async def ask() -> None:
            async with AsyncQueries(world.settings) as queries:
                assert await queries.wait_for("orders", "o-1", 2) == 2
                assert await queries.wait_for("users", "u-1", 2) == 2
                order = await queries.order("o-1")
                assert order == world.queries.order("o-1")
                assert order is not None
                assert await queries.user("u-1") == world.queries.user("u-1")
                assert await queries.stock("s-1") == world.queries.stock("s-1")
                assert await queries.low_stock() == world.queries.low_stock()
                assert await queries.orders_of("u-1") == world.queries.orders_of("u-1")
                assert await queries.top_users() == world.queries.top_users()
                assert len(await queries.lag()) == len(VIEWS) * world.settings.partitions

        asyncio.run(ask())
        with pytest.raises(ViewTimeout, match="orderflow projector"):
            world.queries.wait_for("orders", "o-1", 3, timeout=0.2)


def test_sagas_are_seen_where_they_stand_and_nowhere_else(world: World) -> None:
    stuck = events.saga("s-2", 4, status=SagaStatus.NEEDS_OPERATOR, code="timed_out", message="x")
    with world.projector():
        world.commit(events.saga("s-1", 1), events.saga("s-2", 1), events.saga("s-3", 1))
        world.check()
        world.commit(stuck, events.saga("s-2", 3, status=SagaStatus.COMPENSATING), stuck)
        world.commit(events.saga("s-1", 2, status=SagaStatus.COMPLETED))
        world.commit(events.tombstone("saga", "s-3", 2), events.saga("s-4", 1, moved=-1))
        world.check()
        assert world.queries.wait_for("sagas", "s-2", 4) == 4
        assert world.queries.saga("s-3") is None

        async def ask() -> None:
            async with AsyncQueries(world.settings) as queries:
                assert await queries.sagas() == world.queries.sagas()
                assert await queries.saga("s-2") == world.queries.saga("s-2")

        asyncio.run(ask())
        with pytest.raises(ValueError, match="no status 'lost'"):
            world.queries.sagas("lost")
        assert cli(world, "list", ids=True) == ["s-2", "s-4"]
        assert cli(world, "list", "--limit", "1", ids=True) == ["s-2"]
        assert cli(world, "list", "--status", "completed", ids=True) == ["s-1"]
        assert cli(world, "list", "--status", "failed", ids=True) == []
        assert cli(world, "show", "s-2") == plain(world.queries.saga("s-2"))
        assert "needs_operator, timed_out: x" in invoke(world, "show", "s-2").stdout
        assert "no saga s-3" in invoke(world, "show", "s-3", code=Exit.NO).stderr
        before = world.queries.sagas()
        (report,) = rebuild(world.settings, ["sagas"]).views
        assert (report.comparison.differences, report.comparison.skipped) == (0, "")
        assert world.queries.sagas() == before
        world.check()


def invoke(world: World, *arguments: str, code: int = Exit.OK) -> Result:
    """`orderflow sagas` under the environment of the world."""
    result = CliRunner().invoke(app, ("sagas", *arguments), env=world.env)
    assert result.exit_code == code, result.output
    return result


def cli(world: World, *arguments: str, ids: bool = False) -> Any:
    """The JSON answer of `orderflow sagas`; or only the ids of the sagas in it."""
    found = json.loads(invoke(world, *arguments, "-o", "json").stdout)
    return [saga["saga_id"] for saga in found] if ids else found


def test_a_topic_made_anew_is_refused(world: World) -> None:
    world.commit(*life(10))
    with world.projector():
        world.check()
    prefix = world.settings.topic_prefix
    field = f"{prefix}.order.events:0"
    world.client.hset(f"{prefix}:orders:g1:positions", field, 10_000)
    with world.projector() as projector:
        assert projector.wait() == 1
        assert "orderflow rebuild" in projector.text()
        assert "Traceback" not in projector.text()
    rebuild(world.settings)
    with world.projector():
        world.check()


def test_a_topic_made_anew_is_refused_also_when_it_is_longer_than_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its offsets look right; only its id tells that they mean other records."""
    monkeypatch.setattr(staging, "LIVE_CATCHES_UP_S", 0.2)  # nobody feeds the live views
    world.commit(*life(3))
    with world.projector():
        world.check()
    topic = topic_admin.topics_of(world.settings).events("user")
    admin = AdminClient(kafka.admin(world.settings))  # its futures fail when it is collected first
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: _made_anew(world))
    world.written.clear()
    world.commit(*life(20))
    with world.projector() as projector:
        assert projector.wait() == 1
        assert "made anew" in projector.text()
        assert "orderflow rebuild" in projector.text()
    rebuild(world.settings)
    with world.projector():
        world.wait()


def _made_anew(world: World) -> bool:
    """The broker deletes in its own time, and until then refuses to make the topic."""
    topic_admin.apply(world.settings)
    return all(d.state is TopicState.OK for d in topic_admin.diff(world.settings))


def test_a_missing_topic_is_refused(servers: ServersAddress, prefix: str, tmp_path: Path) -> None:
    with RoleProcess("readmodels", environment(servers, prefix, tmp_path), tmp_path / "log") as one:
        assert one.wait() == 1
        assert "orderflow topics apply" in one.text()
