"""The read models on a real Redis Cluster, unchanged; its masters are killed, fall back, and hand slots over."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from eventstore import EventStore
from orderflow.servers import check_redis
from readmodels import AsyncQueries, Consistency, Plan, rebuild, rollback
from readmodels.keys import Keys, bucket_of
from readmodels.views import VIEWS
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.redis import ClusterNotSaid, Line, new_line
from runtime.redis.slots import ClusterUnready
from runtime.settings import Settings
from sync import sync_once
from sync.target import address
from tests.support import events
from tests.support.cluster import Cluster, Node, running_cluster
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess
from tests.support.projecting import World, life
from tests.support.sql import sql_differences
from tests.support.views import differences, live_content
from verification import Kind, Scope, verify

ROWS_ONLY = Scope(states=False)
PROMOTED_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def world(
    servers: ServersAddress, cluster: Cluster, prefix: str, tmp_path: Path
) -> Iterator[World]:
    cluster.settle()
    address_ = ServersAddress(servers.bootstrap_servers, cluster.url)
    one = World(address_, prefix, tmp_path, cluster.client())
    yield one
    one.close()


def test_a_command_comes_to_the_answers_and_the_views_can_be_proven(world: World) -> None:
    lines = [{"sku": "TEAPOT", "quantity": 2, "unit_price": 1999}]
    with (
        RoleProcess("processors", world.env, world.home / "processor.log"),
        world.projector(),
        CommandClient(world.settings) as client,
    ):
        for one in (
            command("ada", "RegisterUser", name="Ada"),
            command("TEAPOT", "RegisterItem", description="Teapot", opening_stock=5),
            command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=lines),
            command("o-1", "ConfirmOrder"),
        ):
            assert client.execute(one, timeout=30).accepted
        assert world.queries.wait_for("orders", "o-1", 2) == 2
        with Consistency(world.settings) as views:
            views.wait_until_consistent(30)
        ada = world.queries.user("ada")
        assert ada is not None
        assert ada.profile is not None
        assert (ada.profile.name, ada.by_status, ada.spent) == ("Ada", {"confirmed": 1}, {"GBP": 3998})
        assert asyncio.run(_top_user(world.settings)) == "ada"
        assert verify(world.settings).drifts == ()
        with EventStore(world.settings) as store:
            found = [event.type for event in store.get_stream("order/o-1")]
        assert found == ["OrderCreated", "OrderConfirmed"]
    assert check_redis(world.settings)


async def _top_user(settings: Settings) -> str:
    async with AsyncQueries(settings) as queries:
        (top,) = await queries.top_users("spent", "GBP")
    return top.user_id


def all_live(world: World) -> dict[str, Any]:
    """What all live views say, read with the library's own client."""
    return {view.name: live_content(world.client, world.settings, view.name) for view in VIEWS}


def test_views_are_rebuilt_verified_mended_and_followed(world: World) -> None:
    world.commit(*life(60), events.tombstone("user", "u-1", 99))
    with world.projector():
        world.check()
        before = all_live(world)
        report = rebuild(world.settings)
        assert (report.equal, report.switched) == (True, True)
        assert [one.comparison.skipped for one in report.views] == [""] * len(VIEWS)
        assert sum(one.comparison.compared for one in report.views) > 100
        assert all_live(world) == before
        assert [one.to_generation for one in rollback(world.settings)] == [1] * len(VIEWS)
        world.commit(*life(20, start=60))
        world.check()

        assert verify(world.settings, ROWS_ONLY).drifts == ()
        (key,) = world.client.scan_iter(match=f"{world.settings.topic_prefix}:orders:g1:*:order:*/o-9")
        world.client.hset(key, "spent", 1)
        mended = verify(world.settings, ROWS_ONLY, repair=True)
        assert {one.kind for one in mended.drifts} == {Kind.DIFFERENT, Kind.TOTALS}
        assert mended.left == ()
        assert differences(world.queries, world.reference()) == []
        assert rebuild(world.settings, plan=Plan(dry_run=True)).equal

        url = f"sqlite:///{world.home}/views.db"
        sync_once(world.settings, address(url))
        world.commit(*life(20, start=80))
        world.check()
        sync_once(world.settings, address(url))
        assert sql_differences(url, world.reference()) == []


@contextmanager
def busy(world: World) -> Iterator[None]:
    """Events come all the time; some have come when it begins."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            world.commit(*life(10, start=number))
            number += 10
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(world.written) > 100)
        yield
    finally:
        stop.set()
        writer.join()


def master_of(world: World, cluster: Cluster, user: str) -> Node:
    """Where the orders of a user are."""
    keys = Keys(world.settings.topic_prefix, "orders", 1)
    return cluster.whose(keys.key("user", bucket_of(user), user))


@pytest.mark.fault
def test_a_replica_takes_over(world: World, cluster: Cluster) -> None:
    master = master_of(world, cluster, "u-1")
    replica = cluster.replica_of(master)
    with world.projector():
        with busy(world):
            master.kill()
            eventually(lambda: replica.is_master, PROMOTED_S)
        cluster.settle()
        world.check()
        assert verify(world.settings, ROWS_ONLY).drifts == ()
        assert rebuild(world.settings).equal
    master.start()


@pytest.mark.fault
def test_a_replica_that_takes_over_without_the_last_writes(world: World, cluster: Cluster) -> None:
    """What one master alone had is gone, and the other masters have what belongs to it."""
    master = master_of(world, cluster, "u-1")
    replica = cluster.replica_of(master)
    url = address(f"sqlite:///{world.home}/views.db")
    with world.projector() as projector:
        with busy(world):
            replica.kill()
            written = len(world.written)
            eventually(lambda: len(world.written) > written + 200)
            sync_once(world.settings, url)  # has what will be lost
            master.kill()
            replica.start()
            eventually(lambda: replica.is_master, PROMOTED_S)
        cluster.settle()
        world.check()
        assert "reading on there" in projector.text() or "does not have" in projector.text()
        assert verify(world.settings, ROWS_ONLY).drifts == ()
        assert rebuild(world.settings).equal
    sync_once(world.settings, url)
    assert sql_differences(str(url), world.reference()) == []
    master.start()


@pytest.mark.fault
def test_a_master_that_comes_back_with_an_older_file(
    world: World, cluster: Cluster, tmp_path: Path
) -> None:
    """Nobody took over meanwhile; the others have kept everything, the positions among it."""
    master = master_of(world, cluster, "u-1")
    replica = cluster.replica_of(master)
    with world.projector():
        world.commit(*life(40))
        world.check()
        shutil.copytree(master.data, tmp_path / "older")
        world.commit(*life(40, start=40))
        world.check()
        replica.kill()
        master.kill()
        shutil.rmtree(master.data)
        shutil.copytree(tmp_path / "older", master.data)
        master.start()
        cluster.settle()
        world.check()
        replica.start()


def test_a_slot_that_is_on_its_way(world: World, cluster: Cluster) -> None:
    world.commit(*life(60))
    keys = Keys(world.settings.topic_prefix, "orders", 1)
    stem = keys.base(bucket_of("u-1"))
    source = cluster.whose(stem)
    target = next(one for one in cluster.nodes if one.is_master and one is not source)
    with world.projector():
        world.check()
        with moving(key_slot(stem.encode()), source, target) as move:
            moved = move(stem)
            assert {key.rpartition(":")[0] for key in moved} & {f"{stem}order", f"{stem}user"}
            assert differences(world.queries, world.reference()) == []
            with closing(new_line(world.settings)) as line, pytest.raises(ClusterUnready):
                list(line.scan(f"{keys.stem}*", 1_000))
            world.commit(*life(20, start=60))
        world.check()
        assert verify(world.settings, ROWS_ONLY).drifts == ()


@contextmanager
def moving(slot: int, source: Node, target: Node) -> Iterator[Any]:
    """A slot is handed over key by key, as redis-cli does it. Gives a function that moves half of the keys."""

    def move(share: float) -> list[str]:
        with source.client as client:
            keys = sorted(client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000))
            some = keys[: max(1, int(len(keys) * share))]
            client.migrate("127.0.0.1", target.port, some, 0, 5_000)
        return some

    target.cluster("SETSLOT", slot, "IMPORTING", source.id)
    source.cluster("SETSLOT", slot, "MIGRATING", target.id)
    yield lambda _stem: move(0.5)
    move(1.0)
    for node in (target, source):
        node.cluster("SETSLOT", slot, "NODE", target.id)


def test_a_cluster_that_the_settings_do_not_call_one_is_named(
    world: World, cluster: Cluster
) -> None:
    alone = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    settings = world.settings.model_copy(update={"redis_url": Settings(REDIS_URL=alone).redis_url})
    with pytest.raises(ClusterNotSaid, match="redis\\+cluster://"):
        check_redis(settings)
    with closing(Line(alone)) as line, pytest.raises(ClusterNotSaid):
        line.run([("GET", key) for key in "abcdef"])
