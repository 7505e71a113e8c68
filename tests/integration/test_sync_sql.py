"""`orderflow sync sql` as a real process, on real Kafka and Redis, into SQLite and PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

import orderflow.cli.sync
from orderflow.cli import app
from orderflow.cli.exits import Exit
from readmodels import rebuild
from readmodels.keys import FIRST_GENERATION, Keys, bucket_of
from readmodels.mending import mend_users, remove_strays
from runtime.embedded import EmbeddedRedis, ServersAddress
from sync import sync_once
from sync.polling import rows_to_write
from sync.rows import ROW_TYPES
from sync.tables import SYNC_VIEWS
from sync.target import Target, TargetAway, address
from tests.support import events
from tests.support.commanding import eventually
from tests.support.postgres import PASSWORD, NoPostgres, Postgres
from tests.support.processes import RoleProcess
from tests.support.projecting import World, life
from tests.support.sql import found_tables, same, sql_differences

SYNCED_S = 60.0
TARGETS = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A real one; where there is none, the reason is shown by `-ra`, as always."""
    try:
        server = Postgres()
    except NoPostgres as reason:
        pytest.skip(f"PostgreSQL is not tested: {reason}")
    with server:
        yield server


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of this kind."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/views.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


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


def syncing(world: World, url: str, *arguments: str) -> RoleProcess:
    """The process, told of its target in the environment, as a deployment does."""
    number = len(list(world.home.glob("sync-*.log")))
    env = {**world.env, "ORDERFLOW_SYNC_URL": url}
    log = world.home / f"sync-{number}.log"
    return RoleProcess("orderflow", env, log, "sync", "sql", "--interval", "0.1", *arguments)


def run(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["sync", "sql", *arguments], env={**world.env, "COLUMNS": "200"})


def wait_until_same(world: World, url: str) -> None:
    """The tables say what the reference says. Shows what they do not, if it takes too long."""
    try:
        eventually(lambda: same(url, world.reference()), SYNCED_S, every=0.2)
    except AssertionError:
        assert sql_differences(url, world.reference()) == []
        raise


def some_deletions(first: int, last: int) -> list[events.Record]:
    return [events.tombstone("order", f"o-{n}", 9) for n in range(first, last)]


@TARGETS
def test_the_tables_follow_the_views(world: World, url: str) -> None:
    world.commit(*life(60))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        world.commit(*life(60, start=60), *some_deletions(0, 9))
        world.commit(events.tombstone("inventory", "s-1", 9), events.tombstone("user", "u-1", 99))
        world.commit(events.tombstone("saga", "o-3", 9))
        wait_until_same(world, url)
        assert sync.stop() == 0
    assert "Traceback" not in sync.text()
    assert sync.text().count("reading all rows") == 4, "followed, once each view was complete"


def test_what_was_damaged_and_mended_in_a_view_is_mended_in_the_tables(
    world: World, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/views.db"
    world.commit(*life(20))
    with world.projector():
        world.check()
    keys = Keys(world.settings.topic_prefix, "orders", FIRST_GENERATION)
    sums = keys.key("user", bucket_of("u-1"), "u-1")
    right = world.client.hgetall(sums)
    world.client.hset(sums, "orders", 99)
    alien = keys.key("order", bucket_of("u-1"), "u-1/alien")
    world.client.copy(keys.key("order", bucket_of("u-1"), "u-1/o-1"), alien)
    assert run(world, "--url", url, "--once").exit_code == Exit.OK
    assert sql_differences(url, world.reference()) != []
    mend_users(world.settings, {"u-1": ()})
    remove_strays(world.settings, "orders", [(alien.removeprefix(keys.stem), "")])
    assert world.client.hgetall(sums) == right
    assert run(world, "--url", url, "--once").exit_code == Exit.OK
    assert sql_differences(url, world.reference()) == []


@TARGETS
def test_one_run_brings_all_in_and_the_next_one_what_is_new(world: World, url: str) -> None:
    world.commit(*life(40))
    with world.projector():
        world.check()
        first = run(world, "--url", url, "--once", "-o", "json")
        assert first.exit_code == Exit.OK, first.output
        assert sql_differences(url, world.reference()) == []
        world.commit(events.order("o-new", 1, user="u-1"), *some_deletions(3, 4))
        world.check()
        second = run(world, "--url", url, "--once", "-o", "json")
    assert sql_differences(url, world.reference()) == []
    by_view = {one["view"]: one for one in json.loads(first.stdout)}
    assert by_view["orders"]["passed"] == "first"
    assert by_view["orders"]["written"] == 40 + 7
    by_view = {one["view"]: one for one in json.loads(second.stdout)}
    assert by_view["orders"] == {
        "view": "orders",
        "written": 1 + 2,  # the order, and the sums of both users
        "deleted": 1,
        "left_out": 0,
        "more": False,
        "passed": None,
    }
    assert by_view["stock"]["written"] == 0


@pytest.mark.fault
@TARGETS
def test_a_sync_that_is_killed_again_and_again_loses_nothing(world: World, url: str) -> None:
    """The target is slow, so that the kills come in the middle: twice in a pass, then while it follows."""
    target = Target(address(url), world.settings.topic_prefix)
    target.prepare()
    _make_slow(url)
    stop = threading.Event()
    world.commit(*life(200))

    def write() -> None:
        for number in range(200, 800, 10):
            if not stop.wait(0.4):
                world.commit(*life(10, start=number), *some_deletions(number - 30, number - 27))

    writer = threading.Thread(target=write)
    with world.projector():
        world.wait()
        writer.start()
        try:
            for in_a_pass in (True, True, False, False):
                with syncing(world, url) as sync:
                    if in_a_pass:
                        eventually(partial(_says, sync, "reading all rows"), SYNCED_S)
                    else:
                        eventually(partial(_follows, target), SYNCED_S)
                    time.sleep(0.3)
                    sync.kill()
        finally:
            stop.set()
            writer.join()
        world.wait()
        with syncing(world, url) as sync:
            wait_until_same(world, url)
            assert "reading all rows" not in sync.text(), "it goes on where the killed ones were"
    target.close()


def _says(process: RoleProcess, words: str) -> bool:
    return words in process.text()


def _follows(target: Target) -> bool:
    """Every view is complete, and what changes is followed."""
    try:
        stands = [target.stand(view) for view in ROW_TYPES]
    except TargetAway:
        return False
    return all(stand.identity and not stand.filling for stand in stands)


def _make_slow(url: str) -> None:
    """Each order that is written takes a few milliseconds."""
    engine = create_engine(address(url))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(
                text(
                    "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$"
                )
            )
            connection.execute(
                text(
                    "CREATE TRIGGER slow AFTER INSERT OR UPDATE ON orders"
                    " FOR EACH ROW EXECUTE FUNCTION slowly()"
                )
            )
        else:
            connection.execute(text("CREATE TABLE ballast (i INTEGER)"))
            connection.execute(
                text("INSERT INTO ballast VALUES (:i)"), [{"i": i} for i in range(200)]
            )
            connection.execute(
                text(
                    "CREATE TRIGGER slow AFTER INSERT ON order_lines BEGIN"
                    " SELECT count(*) FROM ballast a, ballast b WHERE a.i + b.i > 200; END"
                )
            )
    engine.dispose()


@pytest.mark.fault
@TARGETS
def test_two_syncs_on_one_target_do_no_harm(world: World, url: str) -> None:
    world.commit(*life(60))
    with world.projector(), syncing(world, url) as first, syncing(world, url) as second:
        for round_ in range(10):
            world.commit(*life(20, start=60 + round_ * 20), *some_deletions(round_, round_ + 1))
        wait_until_same(world, url)
        first.kill()
        world.commit(*life(20, start=260), *some_deletions(100, 110))
        wait_until_same(world, url)
        assert second.stop() == 0
    for sync in (first, second):
        assert "Traceback" not in sync.text()


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["sqlite"])
def test_an_emptied_redis_does_not_empty_the_target(flushable: World, url: str) -> None:
    flushable.commit(*life(60))
    with syncing(flushable, url) as sync:
        with flushable.projector():
            wait_until_same(flushable, url)
        flushable.client.flushall()
        eventually(lambda: "waiting: " in sync.text())
        time.sleep(0.5)
        assert sql_differences(url, flushable.reference()) == [], "the target stays as it is"
        flushable.commit(*some_deletions(0, 20), events.tombstone("user", "u-2", 99))
        with flushable.projector():  # never told Redis of these rows, nor of their deletion
            wait_until_same(flushable, url)
        assert "because Redis was emptied" in sync.text()


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["sqlite"])
def test_what_happened_to_redis_while_no_sync_ran_is_found_out(
    flushable: World, own_redis: EmbeddedRedis, url: str
) -> None:
    flushable.commit(*life(40))
    with flushable.projector():
        flushable.check()
        assert run(flushable, "--url", url, "--once").exit_code == 0
        flushable.commit(*some_deletions(0, 10))
        flushable.check()
        flushable.client.flushall()
        flushable.check()
        emptied = run(flushable, "--url", url, "--once", "-o", "json")
        assert sql_differences(url, flushable.reference()) == []
        flushable.commit(*some_deletions(10, 20))
        flushable.check()
        own_redis.kill()
        own_redis.start()
        flushable.check()
        restarted = run(flushable, "--url", url, "--once", "-o", "json")
        assert sql_differences(url, flushable.reference()) == []
    assert {one["passed"] for one in json.loads(emptied.stdout)} == {"refilled"}
    assert {one["passed"] for one in json.loads(restarted.stdout)} <= {"other_server", "refilled"}


@pytest.mark.fault
@TARGETS
def test_a_rebuild_that_switches_loses_nothing(world: World, url: str) -> None:
    world.commit(*life(60))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        world.commit(*life(60, start=60), *some_deletions(0, 30))
        rebuild(world.settings)
        world.commit(*life(20, start=120), *some_deletions(30, 40))
        wait_until_same(world, url)
        assert "because the view was rebuilt" in sync.text()


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_target_that_somebody_holds_is_waited_for(world: World, url: str) -> None:
    world.commit(*life(20))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        with closing(
            sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        ) as other:
            other.execute("BEGIN EXCLUSIVE")
            world.commit(*life(20, start=20), *some_deletions(0, 5))
            eventually(lambda: "database is locked; trying again" in sync.text())
            assert sync.running
            other.execute("ROLLBACK")
        wait_until_same(world, url)
        eventually(lambda: "works again" in sync.text())
        assert sync.text().count("database is locked") == 1


@pytest.mark.fault
def test_a_postgresql_that_crashes_is_waited_for(world: World, postgres: Postgres) -> None:
    url = postgres.new_database()
    world.commit(*life(20))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        postgres.kill()
        world.commit(*life(20, start=20), *some_deletions(0, 5))
        eventually(lambda: "trying again until it works" in sync.text())
        postgres.start()
        wait_until_same(world, url)
        assert sync.stop() == 0
    assert PASSWORD not in sync.text()


END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{db}'"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("disturb", "heal", "said"),
    [
        ("ALTER DATABASE {db} SET default_transaction_read_only = on", True, "25006"),
        ("ALTER DATABASE {db} SET statement_timeout = 1", True, "57014"),
        ("ALTER DATABASE {db} SET idle_session_timeout = 20", False, ""),
        ("ALTER DATABASE {db} SET idle_in_transaction_session_timeout = 1", True, ""),
        ("ALTER DATABASE {db} ALLOW_CONNECTIONS false", True, "not currently accepting"),
    ],
    ids=["read-only", "cancelled", "idle", "idle-in-transaction", "no-connections"],
)
def test_a_postgresql_that_takes_nothing_for_a_while_is_waited_for(
    world: World, postgres: Postgres, disturb: str, heal: bool, said: str
) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    world.commit(*life(20))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        postgres.administer(disturb.format(db=name), END_SESSIONS.format(db=name))
        world.commit(*life(200, start=20), *some_deletions(0, 5))
        if said:
            eventually(lambda: said in sync.text())
            assert sync.text().count(f"{said}") == 1, "told once"
        assert sync.running
        if heal:  # a session that has begun keeps what it was told
            postgres.administer(
                f"ALTER DATABASE {name} RESET ALL",
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS true",
            )
        wait_until_same(world, url)
        assert sync.stop() == 0, sync.text()
    assert "Traceback" not in sync.text()


@pytest.mark.fault
def test_sessions_that_are_ended_again_and_again_and_a_server_that_restarts_lose_nothing(
    world: World, postgres: Postgres
) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    world.commit(*life(20))
    with world.projector(), syncing(world, url) as sync:
        wait_until_same(world, url)
        for number in range(20, 320, 10):
            world.commit(*life(10, start=number), *some_deletions(number - 9, number - 5))
            postgres.administer(END_SESSIONS.format(db=name))
        postgres.stop()
        world.commit(*life(20, start=320))
        eventually(lambda: "trying again until it works" in sync.text())
        postgres.start()
        wait_until_same(world, url)
        assert sync.stop() == 0, sync.text()
    assert "Traceback" not in sync.text()


@TARGETS
def test_an_order_that_stands_with_two_users_at_a_time_ends_nothing(world: World, url: str) -> None:
    """As it is read while it moves from one to the other, or where a view is damaged."""
    world.commit(*life(20))
    with world.projector():
        world.check()
    keys = Keys(world.settings.topic_prefix, "orders", FIRST_GENERATION)
    for number in range(10):
        own = keys.key("order", bucket_of(f"u-{number % 7}"), f"u-{number % 7}/o-{number}")
        for user in ("u-x", "u-y"):
            copy = keys.key("order", bucket_of(user), f"{user}/o-{number}")
            assert world.client.copy(own, copy)
    assert run(world, "--url", url, "--once").exit_code == Exit.OK
    found = found_tables(url)
    assert len(found["orders"]) == 20
    assert found["order_lines"] == [
        line for line in found["order_lines"] if line["order_id"].startswith("o-")
    ]


@TARGETS
def test_what_the_database_refuses_of_a_row_is_put_aside_and_told(world: World, url: str) -> None:
    Target(address(url), world.settings.topic_prefix).prepare()
    engine = create_engine(address(url))
    with engine.begin() as connection:  # a rule that somebody has added
        connection.execute(text("CREATE UNIQUE INDEX odd ON stock (on_hand) WHERE on_hand = 3"))
    engine.dispose()
    world.commit(*life(60))
    with world.projector():
        world.check()
        result = run(world, "--url", url, "--once", "-o", "json")
    assert result.exit_code == Exit.OK, result.output
    wanted = world.reference().stock()
    odd = [sku for sku, level in wanted.items() if level.on_hand == 3]
    found = {row["sku"] for row in found_tables(url)["stock"]}
    assert len(odd) > 1
    assert len(found & set(odd)) == 1
    assert found | set(odd) == set(wanted)
    by_view = {one["view"]: one for one in json.loads(result.stdout)}
    assert by_view["stock"]["left_out"] == len(odd) - 1
    assert by_view["orders"]["left_out"] == 0


HOSTILE = ["\0", "a\0b", "\ud800", "9" * 41, str(2**63), "NaN", "1e999", "[" * 3_000, "{}", "[1]"]


@TARGETS
def test_values_that_no_database_takes_end_nothing(world: World, url: str) -> None:
    """Every field of every sort of row, with every such value; the row goes in or is put aside."""
    target = Target(address(url), world.settings.topic_prefix)
    target.prepare()
    for view, row_types in ROW_TYPES.items():
        for row_type in row_types:
            names = [column.name for column in row_type.table.columns]
            whole = dict.fromkeys(names, "1") | {"lines": "[]", "spent:EUR": "1", "steps": "[]"}
            found = [
                ((row_type, f"u/{name}-{number}{value[:2]}"), whole | {name: value})
                for name in whole
                for number, value in enumerate(HOSTILE)
            ]
            rows, _ = rows_to_write(found)
            stand = target.stand(view)
            done = target.commit(view, stand, stand, rows)
            assert done.left_out == 0, "what no table can hold is known before"
    target.close()


def test_the_password_is_in_no_output(world: World, postgres: Postgres) -> None:
    wrong = postgres.url("postgres", "wr0ng-secret")
    with syncing(world, wrong) as sync:
        eventually(lambda: "password authentication failed" in sync.text())
        assert sync.stop() == 0
    assert (
        f"synchronising to postgresql://tester:***@127.0.0.1:{postgres.port}/postgres"
        in sync.text()
    )
    assert "wr0ng-secret" not in sync.text()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_one_run_says_what_it_waited_for(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orderflow.cli.sync, "sync_once", partial(sync_once, within_s=0.5))
    result = run(world, "--url", url, "--once")
    assert result.exit_code == Exit.TIMEOUT
    assert "orders: Redis has no such view; a projector fills it" in result.stderr


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_topic_that_was_made_anew_is_refused(world: World, url: str) -> None:
    world.commit(*life(20))
    with world.projector():
        world.check()
        assert run(world, "--url", url, "--once").exit_code == 0
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            SYNC_VIEWS.update().values(topics={f"{world.settings.topic_prefix}.order.events": "x"})
        )
    engine.dispose()
    result = run(world, "--url", url, "--once")
    assert result.exit_code == Exit.UNFIT
    assert "was deleted and made anew" in result.stderr


@pytest.mark.parametrize("url", ["mysql://root:hunter2@db/x", "hunter2"])
def test_a_url_that_is_none_is_refused(world: World, url: str) -> None:
    result = run(world, "--url", url, "--once")
    assert result.exit_code == Exit.UNFIT
    assert "hunter2" not in result.output


def test_sums_beyond_64_bits_are_exact_where_the_database_can(
    world: World, postgres: Postgres, tmp_path: Path
) -> None:
    world.commit(*life(1))
    with world.projector():
        world.check()
    keys = Keys(world.settings.topic_prefix, "orders", FIRST_GENERATION)
    (key,) = world.client.scan_iter(match=f"{keys.stem}*:user:u-0")
    world.client.hset(key, "spent:USD", str(2**70 + 1))
    found: list[Any] = []
    for url in (postgres.new_database(), f"sqlite:///{tmp_path}/big.db"):
        assert run(world, "--url", url, "--once").exit_code == 0
        found.append(found_tables(url)["user_spent"][0]["spent"])
    assert found == [2**70 + 1, int(float(2**70 + 1))]
