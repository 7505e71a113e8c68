"""The read models on a real Redis Cluster: its masters are killed, fall back, and hand slots over."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from eventstore import EventStore
from orderflow.servers import check_redis
from readmodels import (
    AsyncQueries,
    Consistency,
    discard_previous,
    rebuild,
    rebuilding,
    rollback,
)
from readmodels.keys import Keys, bucket_of
from readmodels.views import VIEWS
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.redis import ClusterNotSaid, Line, new_line, pooled
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


class Fed(World):
    """A world with a projector that runs."""

    process: RoleProcess
    _next = 0

    def more(self, count: int) -> None:
        """Orders that there have not been yet, from their creation to different ends."""
        self._next += count
        self.commit(*life(count, start=self._next - count))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Events come all the time; some have come when it begins."""
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                self.more(10)
                time.sleep(0.05)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            self.wait_for_records(100)
            yield
        finally:
            stop.set()
            writer.join()

    def wait_for_records(self, count: int) -> None:
        written = len(self.written)
        eventually(lambda: len(self.written) >= written + count)


@pytest.fixture(scope="module")
def shared(
    servers: ServersAddress, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fed]:
    """One for all that happens to the cluster: a projector takes a while to start."""
    own = ServersAddress(servers.bootstrap_servers, cluster.url)
    one = Fed(own, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("fed"), cluster.client())
    with one.projector() as one.process:
        yield one
        assert one.process.stop() == 0
    assert "Traceback" not in one.process.text()
    one.close()


@pytest.fixture
def fed(shared: Fed, cluster: Cluster) -> Fed:
    """With some orders, all well."""
    cluster.settle()
    shared.more(20)
    shared.check()
    return shared


@pytest.fixture
def world(
    servers: ServersAddress, cluster: Cluster, prefix: str, tmp_path: Path
) -> Iterator[World]:
    own = ServersAddress(servers.bootstrap_servers, cluster.url)
    one = World(own, prefix, tmp_path, cluster.client())
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
        assert (ada.profile.name, ada.by_status, ada.spent) == (
            "Ada",
            {"confirmed": 1},
            {"GBP": 3998},
        )
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


def test_views_are_rebuilt_verified_mended_and_followed(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "FOLLOW_S", 0.0)  # what is removed was nobody's before
    fed.commit(events.tombstone("user", "u-1", 9), events.tombstone("inventory", "s-1", 9))
    fed.check()
    before = all_live(fed)
    report = rebuild(fed.settings)
    assert (report.equal, report.switched) == (True, True)
    assert [one.comparison.skipped for one in report.views] == [""] * len(VIEWS)
    assert sum(one.comparison.compared for one in report.views) > 50
    assert all_live(fed) == before
    assert [one.to_generation for one in rollback(fed.settings)] == [1] * len(VIEWS)

    assert verify(fed.settings, ROWS_ONLY).drifts == ()
    prefix = fed.settings.topic_prefix
    (key,) = fed.client.scan_iter(match=f"{prefix}:orders:g1:*:order:*/o-9")
    fed.client.hset(key, "spent", 1)
    mended = verify(fed.settings, ROWS_ONLY, repair=True)
    assert {one.kind for one in mended.drifts} == {Kind.DIFFERENT, Kind.TOTALS}
    assert mended.left == ()

    url = address(f"sqlite:///{fed.home}/views.db")
    sync_once(fed.settings, url)
    fed.more(20)
    fed.check()
    sync_once(fed.settings, url)
    assert sql_differences(str(url), fed.reference()) == []
    assert discard_previous(fed.settings) > 50
    assert not list(fed.client.scan_iter(match=f"{prefix}:*:g2:*"))


@pytest.mark.fault
def test_a_replica_takes_over(fed: Fed, cluster: Cluster) -> None:
    master, replica = pair_of(fed, cluster)
    with fed.busy():
        master.kill()
        eventually(lambda: replica.is_master, PROMOTED_S)
    cluster.settle()
    fed.check()
    assert verify(fed.settings, ROWS_ONLY).drifts == ()
    master.start()


@pytest.mark.fault
def test_a_replica_that_takes_over_without_the_last_writes(fed: Fed, cluster: Cluster) -> None:
    """What one master alone had is gone, and the other masters have what belongs to it."""
    master, replica = pair_of(fed, cluster)
    url = address(f"sqlite:///{fed.home}/views.db")
    with fed.busy():
        replica.kill()
        fed.wait_for_records(200)
        sync_once(fed.settings, url)  # has what will be lost
        log = len(fed.process.text())
        master.kill()
        replica.start()
        eventually(lambda: replica.is_master, PROMOTED_S)
    cluster.settle()
    fed.check()
    said = fed.process.text()[log:]
    assert "reading on there" in said or "does not have" in said
    assert verify(fed.settings, ROWS_ONLY).drifts == ()
    sync_once(fed.settings, url)
    assert sql_differences(str(url), fed.reference()) == []
    master.start()


@pytest.mark.fault
def test_a_master_that_comes_back_with_an_older_file(
    fed: Fed, cluster: Cluster, tmp_path: Path
) -> None:
    """Nobody took over meanwhile; the others have kept everything, the positions among it."""
    master, replica = pair_of(fed, cluster)
    shutil.copytree(master.data, tmp_path / "older")
    fed.more(40)
    fed.check()
    replica.kill()
    master.kill()
    shutil.rmtree(master.data)
    shutil.copytree(tmp_path / "older", master.data)
    master.start()
    cluster.settle()
    fed.check()
    replica.start()


def test_an_order_deleted_in_the_moment_that_is_lost_is_named_and_mended(fed: Fed) -> None:
    """The limit of docs/REDIS_CLUSTER.md: its user's bucket falls back, and the order's does not."""
    order, user = next(
        (f"o-{n}", f"u-{n % 7}") for n in range(7) if bucket_of(f"o-{n}") != bucket_of(f"u-{n}")
    )
    stem = Keys(fed.settings.topic_prefix, "orders", 1).base(bucket_of(user))
    with closing(pooled(fed.settings, text=False)) as redis:
        keys = list(fed.client.scan_iter(match=f"{stem}*", count=1_000))
        dumped = redis.run([("DUMP", key) for key in keys])
        fed.commit(events.tombstone("order", order, 9))
        fed.check()
        redis.run([("RESTORE", k, 0, v, "REPLACE") for k, v in zip(keys, dumped, strict=True)])
    fed.wait()
    found = verify(fed.settings, ROWS_ONLY, repair=True)
    assert [(one.kind, one.key) for one in found.drifts] == [(Kind.ALIEN, order)]
    assert found.left == ()
    fed.check()


def test_a_slot_that_is_on_its_way(fed: Fed, cluster: Cluster) -> None:
    stem = Keys(fed.settings.topic_prefix, "orders", 1).base(bucket_of("u-1"))
    source = cluster.whose(stem)
    target = next(one for one in cluster.nodes if one.is_master and one is not source)
    with moving(key_slot(stem.encode()), source, target) as move:
        moved = {key.removeprefix(stem).partition(":")[0] for key in move(0.5)}
        assert moved & {"order", "user", "list"}
        assert differences(fed.queries, fed.reference()) == []
        with closing(new_line(fed.settings)) as line, pytest.raises(ClusterUnready):
            list(line.scan(f"{stem}*", 1_000))
        fed.more(20)
        move(1.0)
    fed.check()
    assert verify(fed.settings, ROWS_ONLY).drifts == ()


def test_a_cluster_that_the_settings_do_not_call_one_is_named(cluster: Cluster) -> None:
    alone = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    with pytest.raises(ClusterNotSaid, match=r"redis\+cluster://"):
        check_redis(Settings(REDIS_URL=alone))
    with closing(Line(alone)) as line, pytest.raises(ClusterNotSaid):
        line.run([("GET", key) for key in "abcdef"])


def pair_of(world: World, cluster: Cluster) -> tuple[Node, Node]:
    """The master that has the orders of a user, and its replica."""
    keys = Keys(world.settings.topic_prefix, "orders", 1)
    master = cluster.whose(keys.key("user", bucket_of("u-1"), "u-1"))
    return master, cluster.replica_of(master)


@contextmanager
def moving(slot: int, source: Node, target: Node) -> Iterator[Callable[[float], list[str]]]:
    """A slot is handed over key by key, as redis-cli does it; the function moves a share of its keys."""

    def move(share: float) -> list[str]:
        with source.client as client:
            keys = sorted(client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000))
            some = keys[: int(len(keys) * share)]
            client.migrate("127.0.0.1", target.port, some, 0, 5_000)
        return some

    target.cluster("SETSLOT", slot, "IMPORTING", source.id)
    source.cluster("SETSLOT", slot, "MIGRATING", target.id)
    yield move
    for node in (target, source):
        node.cluster("SETSLOT", slot, "NODE", target.id)
