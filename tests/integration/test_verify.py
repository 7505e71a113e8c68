"""What somebody has damaged is found and mended, and what only moves is not called damaged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from readmodels import rebuild, rebuilding, staging
from readmodels.keys import Keys
from readmodels.views import VIEWS
from runtime import kafka
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from schemas.partitioner import partition_for
from tests.support import events
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess
from tests.support.projecting import World, life
from tests.support.views import live_content
from verification import Kind, Level, Scope, verify
from verification import states as states_module

ROWS_ONLY = Scope(states=False)
ORDER, STOCK = "*:order:u-1/o-1", "*:sku:s-1"


@pytest.fixture
def world(
    servers: ServersAddress, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Views that are live, and nobody who feeds them."""
    monkeypatch.setattr(rebuilding, "FOLLOW_S", 0.0)
    monkeypatch.setattr(staging, "LIVE_CATCHES_UP_S", 0.2)
    monkeypatch.setattr(states_module, "PAUSE_S", 0.0)
    one = World(servers, prefix, tmp_path)
    one.commit(*life(40), events.tombstone("order", "o-39", 9))
    assert rebuild(one.settings).switched
    yield one
    one.close()


def find(world: World, view: str, pattern: str) -> str:
    """The one key of the live generation of a view that looks so."""
    generation = int(world.client.hget(f"{world.settings.topic_prefix}:views", view) or 1)
    stem = Keys(world.settings.topic_prefix, view, generation).stem
    (key,) = world.client.scan_iter(match=f"{stem}{pattern}")
    return str(key)


def all_live(world: World) -> dict[str, Any]:
    """What all live views say."""
    return {view.name: live_content(world.client, world.settings, view.name) for view in VIEWS}


Damage = Callable[[World], object]


def _copy(world: World, view: str, pattern: str, old: str, new: str) -> None:
    key = find(world, view, pattern)
    world.client.copy(key, key.replace(old, new))


def _beside(world: World, view: str, pattern: str, kind: str) -> str:
    """The key of another kind in the same bucket."""
    return find(world, view, pattern).rpartition("}:")[0] + "}:" + kind


def _changed_user(world: World) -> None:
    key = find(world, "orders", ORDER)
    row = {**world.client.hgetall(key), "user_id": "u-2"}
    world.client.hset(find(world, "orders", "*:order:u-2/o-2").replace("o-2", "o-1"), mapping=row)


DAMAGES: dict[str, tuple[Damage, set[Kind]]] = {
    "a row changed": (lambda w: w.client.hset(find(w, "orders", ORDER), "total", 1), {Kind.DIFFERENT}),
    "a field too many": (lambda w: w.client.hset(find(w, "stock", STOCK), "x", 1), {Kind.DIFFERENT}),
    "a contribution changed": (
        lambda w: w.client.hset(find(w, "orders", ORDER), "spent", 1),
        {Kind.DIFFERENT, Kind.TOTALS},
    ),
    "a version that never was": (
        lambda w: w.client.hset(find(w, "stock", STOCK), "version", 999),
        {Kind.DIFFERENT},
    ),
    "a row deleted": (
        lambda w: w.client.delete(find(w, "orders", ORDER)),
        {Kind.MISSING, Kind.TOTALS},
    ),
    "a document deleted": (lambda w: w.client.delete(find(w, "users", "*:user:u-2")), {Kind.MISSING}),
    "a place deleted": (lambda w: w.client.delete(find(w, "orders", "*:place:o-1")), {Kind.DIFFERENT}),
    "an alien row": (lambda w: _copy(w, "orders", ORDER, "/o-1", "/alien"), set()),
    "an alien document": (lambda w: _copy(w, "sagas", "*:saga:o-1", "saga:o-1", "saga:alien"), {Kind.ALIEN}),
    "a row under a second user": (_changed_user, {Kind.ALIEN}),
    "an alien place": (
        lambda w: w.client.set(find(w, "orders", "*:place:o-1").replace("o-1", "alien"), "u-1/EUR"),
        {Kind.ALIEN},
    ),
    "a total changed": (
        lambda w: w.client.hset(find(w, "orders", "*:user:u-1"), "spent:EUR", 5),
        {Kind.TOTALS},
    ),
    "totals deleted": (lambda w: w.client.delete(find(w, "orders", "*:user:u-1")), {Kind.TOTALS}),
    "a ranking's score changed": (
        lambda w: w.client.zadd(_beside(w, "orders", "*:user:u-1", "top-spent:EUR"), {"u-1": 7}),
        {Kind.TOTALS},
    ),
    "a member removed": (
        lambda w: w.client.zrem(_beside(w, "orders", "*:user:u-1", "top-orders"), "u-1"),
        {Kind.TOTALS},
    ),
    "a ranking's alien": (
        lambda w: w.client.zadd(_beside(w, "orders", "*:user:u-1", "top-spent:XXX"), {"u-1": 7}),
        {Kind.TOTALS},
    ),
    "a saga's place removed": (
        lambda w: w.client.zrem(_beside(w, "sagas", "*:saga:o-1", "by-status"), "o-1"),
        {Kind.DIFFERENT},
    ),
    "an order not listed": (
        lambda w: w.client.zpopmin(find(w, "orders", "*:list:u-1")),
        {Kind.DIFFERENT, Kind.TOTALS},
    ),
    "a list lost": (
        lambda w: w.client.delete(find(w, "orders", "*:list:u-1")),
        {Kind.DIFFERENT, Kind.TOTALS},
    ),
}  # fmt: skip


def test_whatever_is_damaged_is_found_and_mended(world: World) -> None:
    whole = verify(world.settings, ROWS_ONLY)
    assert (whole.drifts, whole.moving) == ((), 0)
    assert whole.rows > 100
    before = all_live(world)
    for name, (damage, kinds) in DAMAGES.items():
        damage(world)
        assert all_live(world) != before, f"{name} damages nothing"
        report = verify(world.settings, ROWS_ONLY, repair=True)
        assert report.drifts, f"{name} is not found"
        assert not kinds or {one.kind for one in report.drifts} == kinds, (name, report.drifts)
        assert report.left == (), (name, report.left)
        assert all_live(world) == before, name


def test_a_position_that_was_advanced_hides_nothing(world: World) -> None:
    world.commit(events.user("u-1", 50), events.user("new", 1), events.order("o-1", 9, user="u-1"))
    for view, aggregate in (("users", "user"), ("orders", "order")):
        key = find(world, view, "positions")
        for row in world.queries.lag():
            if row.view == view:
                world.client.hset(
                    key,
                    f"{world.settings.topic_prefix}.{aggregate}.events:{row.partition}",
                    row.end,
                )
    report = verify(world.settings, ROWS_ONLY, repair=True)
    assert {one.key for one in report.drifts} >= {"u-1", "new", "o-1"}
    assert report.left == ()
    world.client.hset(key, f"{world.settings.topic_prefix}.order.events:0", 10_000)
    (drift,) = verify(world.settings, ROWS_ONLY, repair=True).left
    assert drift.kind is Kind.POSITION


def test_the_command_says_what_is_wrong_and_fails_until_it_is_mended(world: World) -> None:
    world.client.hset(find(world, "orders", ORDER), "total", 1)

    def run(*arguments: str, code: int) -> Any:
        result = CliRunner().invoke(app, ("verify", *arguments), env=world.env)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    found = run("--all", "--view", "orders", "--json", code=Exit.NO)
    (drift,) = found["drifts"]
    assert (drift["level"], drift["kind"], drift["where"], drift["key"]) == (
        "view", "different", "orders", "o-1",
    )  # fmt: skip
    assert (drift["expected"]["row"]["total"], drift["found"]["row"]["total"]) == ("10", "1")
    assert "o-1" in run("--all", "--view", "orders", code=Exit.NO)
    assert "1 repaired, 0 left" in run("--all", "--view", "orders", "--repair", code=Exit.OK)
    assert run("--sample", "5", "--view", "orders", "--json", code=Exit.OK)["rows"] == 10
    run("--view", "nothing", code=Exit.USAGE)


def test_what_moves_while_it_is_looked_at_is_not_called_wrong(world: World) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 40
        while not stop.is_set():
            hot = events.order("o-1", 10 + number, user="u-1", total=number)
            dead = events.tombstone("order", f"o-{number - 7}", 9)
            world.commit(*life(5, start=number), events.stock("s-0", 100 + number), hot, dead)
            number += 5
            time.sleep(0.01)

    with world.projector() as projector:
        eventually(lambda: "projector is running" in projector.text())
        writer = threading.Thread(target=write)
        writer.start()
        try:
            reports = [verify(world.settings, ROWS_ONLY) for _ in range(3)]
        finally:
            stop.set()
            writer.join()
        assert [one.drifts for one in reports] == [()] * 3
        world.wait()
    assert verify(world.settings, ROWS_ONLY).drifts == ()


@pytest.mark.fault
def test_the_verifier_says_in_redis_what_it_has_found(world: World) -> None:
    world.client.hset(find(world, "orders", ORDER), "total", 1)
    key = f"{world.settings.topic_prefix}:verified"
    log = world.home / "verifier.log"
    with RoleProcess("orderflow", world.env, log, "verifier", "--per-second", "5000") as one:
        eventually(lambda: world.client.get(key), timeout=90)
        assert one.stop() == 0
    found = json.loads(world.client.get(key))
    assert "view orders: different o-1" in found["first"]
    assert "drift: view orders: different o-1" in one.text()


def test_states_histories_and_laws_of_a_real_processor(
    servers: ServersAddress, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_module, "PAUSE_S", 0.0)
    world = World(servers, prefix, tmp_path)
    commands = [
        command("A", "RegisterItem", description="a", opening_stock=10),
        command("A", "ReserveStock", reservation_id="o-1", quantity=3),
        command("A", "ReserveStock", reservation_id="o-2", quantity=2),
        command("A", "ReleaseReservation", reservation_id="o-2"),
        command("ada", "RegisterUser", name="Ada"),
        command("ada", "RegisterUser", name="Eve"),
    ]
    with (
        RoleProcess("processors", world.env, tmp_path / "processor.log"),
        CommandClient(world.settings) as client,
    ):
        outcomes = [client.execute(one, 60) for one in commands]
    assert [one.accepted for one in outcomes] == [True, True, True, True, True, False]
    report = verify(world.settings)
    assert (report.drifts, report.states, report.laws) == ((), 2, 1)

    topics = world.producer.topics
    producer = Producer(kafka.producer(world.settings))
    partition = partition_for(b"A", world.settings.partitions)
    # A state that no history leads to, and holds back more than is reserved.
    level = events.stock("A", 4, on_hand=10, reserved=9).value
    producer.produce(topics.events("inventory"), level, b"A", partition)
    # A history with a hole.
    record = events.user("ada", 3).value
    partition = partition_for(b"ada", world.settings.partitions)
    producer.produce(topics.history("user"), record, b"ada", partition)
    assert producer.flush(10) == 0

    found = {(one.level, one.kind, one.key) for one in verify(world.settings, repair=True).left}

    assert (Level.STATE, Kind.DIFFERENT, "A") in found
    assert (Level.LAW, Kind.BROKEN, "A") in found
    assert any(level is Level.STATE and key == "ada" for level, _, key in found)
    world.close()
