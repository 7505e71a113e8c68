"""What an operator does to views: rebuild them in any way, go back, and mend single aggregates."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from orderflow.cli import app
from orderflow.cli.exits import Exit
from readmodels import (
    Plan,
    RebuildFailed,
    discard_previous,
    filling,
    mend,
    rebuild,
    rebuilding,
    rollback,
    staging,
)
from readmodels.filling import MemoryLost, Progress
from readmodels.keys import Keys
from readmodels.mending import mend_users
from readmodels.spreading import ProcessLost
from readmodels.views import VIEWS
from runtime.embedded import ServersAddress
from schemas.order import OrderStatus
from tests.support import events
from tests.support.commanding import eventually
from tests.support.events import Record
from tests.support.histories import clear
from tests.support.processes import RoleProcess
from tests.support.projecting import World, life
from tests.support.views import differences, live_content


@pytest.fixture
def world(
    servers: ServersAddress, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Views that are live, and nobody who feeds them: the rebuild has to do that itself."""
    monkeypatch.setattr(rebuilding, "FOLLOW_S", 0.0)
    monkeypatch.setattr(staging, "LIVE_CATCHES_UP_S", 0.2)
    one = World(servers, prefix, tmp_path)
    one.commit(*life(40))
    assert rebuild(one.settings).switched
    yield one
    one.close()


def invoke(world: World, *arguments: str, code: int = Exit.OK) -> Result:
    """`orderflow rebuild` under the environment of the world."""
    result = CliRunner().invoke(app, ("rebuild", *arguments), env=world.env)
    assert result.exit_code == code, result.output
    return result


def keys_of(world: World, view: str) -> Keys:
    """The live generation of a view."""
    generation = int(world.client.hget(f"{world.settings.topic_prefix}:views", view) or 1)
    return Keys(world.settings.topic_prefix, view, generation)


def find(world: World, view: str, ending: str) -> str:
    """The one key of a view that ends so."""
    (key,) = world.client.scan_iter(match=f"{keys_of(world, view).stem}*{ending}")
    return str(key)


def everything(world: World) -> dict[str, Any]:
    """Every key of the prefix with what it holds."""
    return {
        key: world.client.dump(key)
        for key in world.client.scan_iter(match=f"{world.settings.topic_prefix}:*")
        if not key.endswith(":rebuild")
    }


def all_live(world: World) -> dict[str, Any]:
    """What all live views say."""
    return {view.name: live_content(world.client, world.settings, view.name) for view in VIEWS}


def test_what_differs_is_not_switched_to_but_reported_and_kept(world: World) -> None:
    world.client.hset(find(world, "orders", ":order:u-1/o-1"), "total", "7")
    file = world.home / "report.json"

    shown = invoke(world, "--report", str(file), code=Exit.NO)

    assert "Not switched" in shown.stdout
    report = json.loads(file.read_text())
    assert (report["equal"], report["switched"]) == (False, False)
    by_view = {one["view"]: one["comparison"] for one in report["views"]}
    assert [one["differences"] for one in by_view.values()] == [1, 0, 0, 0]
    (difference,) = by_view["orders"]["differing"]
    assert difference["key"].endswith("order:u-1/o-1")
    assert (difference["live"]["total"], difference["rebuilt"]["total"]) == ("7", "10")
    ends = {f"{row.topic}:{row.partition}": row.end for row in world.queries.lag()}
    assert by_view["orders"]["vector"].items() <= ends.items()
    assert keys_of(world, "orders").generation == 2
    assert world.client.keys(f"{world.settings.topic_prefix}:orders:g3:*"), "kept for inspection"

    again = json.loads(invoke(world, "--accept-differences", "-o", "json", code=Exit.NO).stdout)

    assert again["switched"]
    assert all(one["resumed"] for one in again["views"])
    assert again["records"] == 0, "what was read the first time was read again"
    assert differences(world.queries, world.reference()) == []


def test_a_dry_run_leaves_redis_as_it_was(world: World) -> None:
    world.client.hset(find(world, "orders", ":order:u-1/o-1"), "total", "7")
    assert not rebuild(world.settings).switched  # there is something to inspect
    before = everything(world)

    report = rebuild(world.settings, plan=Plan(dry_run=True))

    assert [one.comparison.differences for one in report.views] == [1, 0, 0, 0]
    assert not report.switched
    assert everything(world) == before


def test_a_dry_run_does_not_feed_the_live_views(world: World) -> None:
    world.commit(*life(5, start=100))
    before = everything(world)
    report = rebuild(world.settings, plan=Plan(dry_run=True))
    assert not report.equal
    assert all("does a projector run?" in one.comparison.skipped for one in report.views)
    assert everything(world) == before


def test_views_that_nobody_feeds_are_brought_to_the_same_position(world: World) -> None:
    world.commit(*life(40, start=40))
    report = rebuild(world.settings)
    assert report.switched
    assert [one.comparison.skipped for one in report.views] == [""] * len(VIEWS)


def test_rolled_back_views_have_what_came_meanwhile(world: World) -> None:
    before = {view.name: keys_of(world, view.name).generation for view in VIEWS}
    assert rebuild(world.settings).switched
    world.commit(*life(20, start=40), events.tombstone("order", "o-3", 9))

    found = rollback(world.settings)

    assert {one.view: one.to_generation for one in found} == before
    assert differences(world.queries, world.reference()) == []
    assert json.loads(invoke(world, "--rollback", "-o", "json").stdout)[0]["to_generation"] == 3
    assert differences(world.queries, world.reference()) == []
    discard_previous(world.settings)
    assert not world.client.keys(f"{world.settings.topic_prefix}:*:g2:*")
    with pytest.raises(RebuildFailed, match="no view has a previous generation"):
        rollback(world.settings)


def test_a_fresh_rebuild_does_not_go_on_with_what_was_left(world: World) -> None:
    world.client.hset(find(world, "orders", ":order:u-1/o-1"), "total", "7")
    assert not rebuild(world.settings).switched
    report = rebuild(world.settings, plan=Plan(fresh=True, accept_differences=True))
    assert [one.resumed for one in report.views] == [False] * len(VIEWS)
    assert report.records == len(world.written)
    assert not world.client.keys(f"{world.settings.topic_prefix}:*:g3:*")


def test_what_other_code_has_begun_is_not_gone_on_with(world: World) -> None:
    views = f"{world.settings.topic_prefix}:views"
    world.client.hset(find(world, "orders", ":order:u-1/o-1"), "total", "7")
    assert not rebuild(world.settings).switched
    generation, since, _ = world.client.hget(views, "orders:building").split(":")
    world.client.hset(views, "orders:building", f"{generation}:{since}:other")
    by_view = {one.view: one.resumed for one in rebuild(world.settings).views}
    assert by_view == {"orders": False, "stock": True, "users": True, "sagas": True}


def test_a_throttled_rebuild_reads_a_little_at_a_time(world: World) -> None:
    told: list[Progress] = []
    report = rebuild(world.settings, ["orders"], told.append, Plan(records_per_s=200))
    assert report.switched
    assert report.records == sum(record.aggregate == "order" for record in world.written)
    assert report.seconds > report.records / 200 / 2  # the rate is an upper bound


def test_a_view_rebuilt_while_a_projector_is_busy_is_equal_at_the_vector_it_names(
    world: World,
) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 40
        while not stop.is_set():
            world.commit(*life(10, start=number), events.stock("s-0", 100 + number, on_hand=1))
            number += 10
            time.sleep(0.02)

    with world.projector():
        world.wait()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            report = rebuild(world.settings)
        finally:
            stop.set()
            writer.join()
        assert report.switched
        assert all(one.comparison.vector for one in report.views)
        world.check()


DAMAGES = {
    "a field changed": ("hset", ":order:u-1/o-1", "status", "shipped"),
    "what it contributes changed": ("hset", ":order:u-1/o-1", "spent", "5000"),
    "no number": ("hset", ":order:u-1/o-1", "spent", "much"),
    "a version that never was": ("hset", ":order:u-1/o-1", "version", "999"),
    "the row deleted": ("delete", ":order:u-1/o-1"),
    "the place deleted": ("delete", ":place:o-1"),
    "the sums changed": ("hset", ":user:u-1", "orders", "77"),
    "no sums": ("delete", ":user:u-1"),
    "the list lost": ("delete", ":list:u-1"),
}


def test_one_order_made_anew_mends_it_and_what_it_is_counted_in(world: World) -> None:
    for damage in DAMAGES.values():
        check_mended(world, damage)


def check_mended(world: World, damage: tuple[str, ...]) -> None:
    """Damage an order, make it anew."""
    before = all_live(world)
    command, ending, *arguments = damage
    name = find(world, "orders", ending)
    listed = world.client.zrange(find(world, "orders", ":list:u-1"), 0, -1)
    getattr(world.client, command)(name, *arguments)
    if ending.startswith(":list"):  # then nothing but the log knows whose the others are
        ids = [one.partition(":")[2] for one in listed]
        mend_users(world.settings, {"u-1": ()}, {"u-1": ids})
    else:
        assert all_live(world) != before, damage
        invoke(world, "--aggregate", "order", "o-1")
    assert all_live(world) == before, damage


def test_documents_and_their_rankings_are_made_anew(world: World) -> None:
    before = all_live(world)
    low = find(world, "stock", ":sku:s-1").replace(":sku:s-1", ":low")
    world.client.hset(find(world, "stock", ":sku:s-1"), mapping={"version": "999", "x": "y"})
    world.client.zadd(low, {"s-1": 12345})
    world.client.delete(find(world, "users", ":user:u-2"))
    assert [one.result for one in mend(world.settings, "stock", ["s-1"])] == ["written"]
    assert [one.result for one in mend(world.settings, "users", ["u-2"])] == ["written"]
    assert all_live(world) == before


def test_what_the_log_does_not_know_is_removed(world: World) -> None:
    before = all_live(world)
    row = world.client.hgetall(find(world, "orders", ":order:u-1/o-1"))
    alien = find(world, "orders", ":order:u-1/o-1").replace("u-1/o-1", "u-1/alien")
    world.client.hset(alien, mapping=row)
    sku = find(world, "stock", ":sku:s-1").replace("s-1", "alien")
    world.client.hset(sku, mapping={"version": "1"})
    assert [m.result for m in mend(world.settings, "orders", ["alien"], {"alien": ["u-1"]})] == [
        "removed"
    ]
    # Its bucket is not that of its id: it can only be found by looking at all keys, as verify does.
    world.client.delete(sku)
    assert all_live(world) == before


def test_a_deleted_order_that_stands_is_deleted(world: World) -> None:
    dead = find(world, "orders", ":order:u-1/o-1")
    row, place = world.client.hgetall(dead), find(world, "orders", ":place:o-1")
    owner = world.client.get(place)
    world.commit(events.tombstone("order", "o-1", 9))
    assert rebuild(world.settings).switched
    before = all_live(world)
    stem = keys_of(world, "orders").stem
    world.client.hset(stem + dead.partition(":g2:")[2], mapping=row)
    world.client.set(stem + place.partition(":g2:")[2], owner)
    assert [one.result for one in mend(world.settings, "orders", ["o-1"])] == ["deleted"]
    assert all_live(world) == before


def test_an_order_made_anew_again_and_again_loses_nothing_that_is_written_meanwhile(
    world: World,
) -> None:
    stop = threading.Event()

    def write() -> None:
        version = 10
        while not stop.is_set():
            version += 1
            status = list(OrderStatus)[version % 3]
            world.commit(events.order("o-1", version, user="u-1", status=status, total=version))
            world.commit(events.order("o-8", version, user="u-1", total=1))
            time.sleep(0.005)

    with world.projector() as projector:
        eventually(lambda: "projector is running" in projector.text())
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(15):
                if number % 2:
                    world.client.hset(find(world, "orders", ":order:u-1/o-1"), "version", 10**6)
                assert mend(world.settings, "orders", ["o-1"])
        finally:
            stop.set()
            writer.join()
        mend(world.settings, "orders", ["o-1"])
        world.check()


def test_usage_that_makes_no_sense_is_refused(world: World) -> None:
    invoke(world, "--rollback", "--dry-run", code=Exit.USAGE)
    invoke(world, "--aggregate", "payment", "p-1", code=Exit.USAGE)
    invoke(world, "--view", "nothing", code=Exit.USAGE)


def a_little_at_a_time(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Each process of a rebuild is slow from now on, so that it can be met at work."""
    site = home / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from readmodels import filling\n"
        "filling.BATCH_RECORDS = 2\n"
        "filling.PROGRESS_EVERY_S = 0.0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setattr(filling, "BATCH_RECORDS", 2)
    monkeypatch.setattr(filling, "PROGRESS_EVERY_S", 0.0)


def others(pid: int | None = None) -> list[psutil.Process]:
    """The further processes of the rebuild that this process (or another one) is at."""
    children = psutil.Process(pid).children()
    return [child for child in children if "readmodels.filling_process" in child.cmdline()]


def midway(world: World, act: Callable[[], object]) -> Callable[[Progress], None]:
    """What a rebuild tells its progress to, to have this done when all processes are at work."""
    acted: list[bool] = []

    def told(_: Progress) -> None:
        if not acted:
            when_all_are_at_work(world)
            acted.append(True)
            act()

    return told


def when_all_are_at_work(world: World) -> None:
    """Waits until each partition of the orders has been filled in part."""
    positions = f"{world.settings.topic_prefix}:orders:g3:positions"
    lags = [row for row in world.queries.lag() if row.view == "orders"]
    ends = {f"{row.topic}:{row.partition}": row.end for row in lags}

    def at_work() -> bool:
        found = world.client.hgetall(positions)
        return all(0 < int(found.get(name, 0)) < end for name, end in ends.items())

    eventually(at_work, every=0.002)


def many_orders() -> list[Record]:
    """Enough that filling them by twos takes a moment."""
    return [record for record in life(600, start=40) if record.aggregate == "order"]


def test_several_processes_fill_what_one_fills(world: World) -> None:
    broken = [Record("order", f"broken-{number}", b"not json") for number in range(8)]
    world.commit(*life(40, start=40), events.tombstone("order", "o-3", 9), *broken)
    one = rebuild(world.settings, plan=Plan(dry_run=True, processes=1))
    told: list[Progress] = []

    report = rebuild(world.settings, on_progress=told.append, plan=Plan(processes=3))

    assert report.switched
    assert (one.processes, report.processes) == (1, 3)
    assert (report.records, report.unreadable) == (one.records, one.unreadable)
    assert (report.records, report.unreadable) == (len(world.written), len(broken))
    assert [view.keys for view in report.views] == [view.keys for view in one.views]
    assert [view.comparison.skipped for view in report.views] == [""] * len(VIEWS)
    assert told[-1].done == told[-1].total >= report.records
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert differences(world.queries, world.reference()) == []
    assert not others()
    assert "2 processes" in invoke(world, "--processes", "2", "--view", "orders").stdout
    throttled = rebuild(world.settings, ["orders"], plan=Plan(records_per_s=10**6, processes=2))
    assert throttled.processes == 1


def test_a_rebuild_whose_process_is_killed_says_so_and_the_next_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.commit(*many_orders())
    before = all_live(world)

    def kill_another() -> None:
        (other,) = others()
        other.kill()

    kill = midway(world, kill_another)
    with monkeypatch.context() as patched:
        a_little_at_a_time(patched, tmp_path)
        with pytest.raises(ProcessLost, match=r"SIGKILL.*rebuild again"):
            rebuild(world.settings, ["orders"], kill, Plan(processes=2))

    assert all_live(world) == before, "the old views do not serve on"
    report = rebuild(world.settings, ["orders"], plan=Plan(processes=2))
    assert report.switched
    assert report.views[0].resumed
    assert report.records < sum(record.aggregate == "order" for record in world.written)
    assert differences(world.queries, world.reference()) == []


def test_a_killed_rebuild_leaves_no_process_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.commit(*many_orders())
    script = tmp_path / "rebuild_script.py"
    script.write_text(
        "import time\n"
        "from readmodels import Plan, rebuild\n"
        "from runtime.settings import Settings\n"
        "rebuild(Settings(), ['orders'], lambda _: time.sleep(60), Plan(processes=2))\n"
    )
    a_little_at_a_time(monkeypatch, tmp_path)
    env = {**world.env, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{tmp_path}:{Path.cwd()}"}
    with RoleProcess("rebuild_script", env, tmp_path / "rebuild.log") as process:
        when_all_are_at_work(world)
        left = others(process.pid)
        world.client.client_pause(
            60_000, all=False
        )  # waiting for Redis, it cannot notice by itself
        try:
            process.kill()
            gone, alive = psutil.wait_procs(left, timeout=5)
        finally:
            world.client.client_unpause()
    assert (len(gone), alive) == (1, [])
    assert "Traceback" not in process.text()
    world.client.delete(f"{world.settings.topic_prefix}:rebuild")  # or half a minute later
    report = rebuild(world.settings, ["orders"])
    assert report.switched
    assert report.views[0].resumed
    assert differences(world.queries, world.reference()) == []


def test_redis_emptied_while_several_processes_fill_ends_them_all(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.commit(*many_orders())
    a_little_at_a_time(monkeypatch, tmp_path)
    empty = midway(world, lambda: clear(world.client, world.settings.topic_prefix))
    with pytest.raises(MemoryLost):
        rebuild(world.settings, ["orders"], empty, Plan(processes=2))
    assert not others()
