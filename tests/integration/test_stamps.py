"""The store stamps the rows that change, and only those; what it says of deletions it says for a day."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from readmodels.keys import MARKER_SECONDS, bucket_of
from readmodels.steps import drive
from runtime.embedded import ServersAddress
from runtime.redis import Command, Line, Reply
from schemas.order import OrderStatus
from sync.cursor import Wait
from sync.polling import Moved, Poller
from sync.target import Target, address
from tests.support import events
from tests.support.events import Record
from tests.support.histories import World, clear, store
from tests.support.sql import sql_differences
from tests.support.views import reference_of

DAY_US = MARKER_SECONDS * 1_000_000


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    with store(servers, prefix, tmp_path) as made:
        made.begin()
        yield made


def apply(world: World, *records: Record) -> None:
    start = world.at[0]
    assert drive(world.line, world.steps(0, list(records), start))
    world.at[0] = start + len(records)


def stamps(world: World, view: str, owner: str) -> dict[str, int]:
    """The rows of an owner's bucket by their stamp."""
    changed, _ = world.keys(view).stamps(bucket_of(owner))
    return _scores(world, changed)


def removed(world: World, view: str, owner: str) -> dict[str, int]:
    _, gone = world.keys(view).stamps(bucket_of(owner))
    return _scores(world, gone)


def _scores(world: World, key: str) -> dict[str, int]:
    found: Any = world.client.zrange(key, 0, -1, withscores=True)
    return {row: int(at) for row, at in found}


def test_a_change_has_a_stamp_above_all_before_it_and_a_repetition_has_none(world: World) -> None:
    apply(world, events.order("o-1", 1), events.order("o-2", 1))
    first = stamps(world, "orders", "u-1")
    assert first["u-1/o-1"] == first["u-1/o-2"], "one call, one stamp"
    assert abs(first["u-1/o-1"] / 1e6 - time.time()) < 60
    apply(world, events.order("o-1", 2, status=OrderStatus.CONFIRMED))
    second = stamps(world, "orders", "u-1")
    assert second["u-1/o-1"] > second["u-1/o-2"] == first["u-1/o-2"]
    apply(world, events.order("o-1", 2, status=OrderStatus.CONFIRMED), events.order("o-2", 1))
    assert stamps(world, "orders", "u-1") == second


@pytest.mark.parametrize(
    ("view", "record", "row"),
    [
        ("stock", events.stock("a", 1), "a"),
        ("users", events.user("a", 1), "a"),
        ("sagas", events.saga("a", 1), "a"),
    ],
)
def test_every_view_has_stamps(world: World, view: str, record: Record, row: str) -> None:
    apply(world, record)
    first = stamps(world, view, row)
    assert list(first) == [row]
    apply(world, record)
    assert stamps(world, view, row) == first


def test_a_clock_that_goes_back_takes_no_stamp_back(world: World) -> None:
    apply(world, events.stock("a", 1))
    changed, _ = world.keys("stock").stamps(bucket_of("a"))
    tomorrow = stamps(world, "stock", "a")["a"] + DAY_US
    world.client.zadd(changed, {"a": tomorrow})
    apply(world, events.stock("a", 2))
    assert stamps(world, "stock", "a")["a"] == tomorrow + 1


def test_a_deletion_is_a_change_and_a_deletion_of_nothing_is_none(world: World) -> None:
    apply(world, events.order("o-1", 1))
    before = stamps(world, "orders", "u-1")
    apply(world, events.tombstone("order", "o-1", 2), events.tombstone("user", "nobody", 3))
    after = stamps(world, "orders", "u-1")
    assert after["u-1/o-1"] > before["u-1/o-1"]
    assert removed(world, "orders", "u-1") == after
    assert stamps(world, "users", "nobody") == {}


def _age(world: World, view: str, owner: str) -> None:
    """As if everything of a bucket had happened more than a day ago."""
    for key in world.keys(view).stamps(bucket_of(owner)):
        for row, at in _scores(world, key).items():
            world.client.zadd(key, {row: at - DAY_US - 1_000_000})


SAME_BUCKET = [name for name in (f"s-{n}" for n in range(400)) if bucket_of(name) == 0]


def test_deletions_are_forgotten_after_a_day_and_rows_that_stand_again_are_not(
    world: World,
) -> None:
    old, again, last, alive = SAME_BUCKET[:4]
    apply(world, *(events.stock(sku, 1) for sku in (old, again, last, alive)))
    apply(world, events.tombstone("inventory", old, 2), events.tombstone("inventory", again, 2))
    apply(world, events.stock(again, 3))
    _age(world, "stock", old)
    dropped = removed(world, "stock", old)[old]
    apply(world, events.tombstone("inventory", last, 2))
    assert set(stamps(world, "stock", old)) == {again, alive, last}
    assert removed(world, "stock", old) == {"": dropped, last: stamps(world, "stock", old)[last]}


def test_what_is_kept_of_deletions_is_bounded_by_a_day_of_them(world: World) -> None:
    for sku in SAME_BUCKET[:10]:
        apply(world, events.stock(sku, 1))
        apply(world, events.tombstone("inventory", sku, 2))
        _age(world, "stock", sku)
    assert len(removed(world, "stock", SAME_BUCKET[0])) == 2  # the horizon and the last one
    assert list(stamps(world, "stock", SAME_BUCKET[0])) == [SAME_BUCKET[9]]


class DisturbedLine(Line):
    """Something happens once, just before or just after Redis is asked for rows."""

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        before, after = self.before, self.after
        if commands[0][0] != "HGETALL" or not (before or after):
            return super().run(commands)
        self.before = self.after = None
        if before is not None:
            before()
        replies = super().run(commands)
        if after is not None:
            after()
        return replies


def test_rows_that_were_read_while_redis_was_emptied_are_not_taken_for_deleted(
    world: World, tmp_path: Path, servers: ServersAddress
) -> None:
    url = f"sqlite:///{tmp_path}/views.db"
    target, line = (
        Target(address(url), world.settings.topic_prefix),
        DisturbedLine(servers.redis_url),
    )
    target.prepare()
    poller = Poller(world.settings.topic_prefix, line, target, lambda _: None, lambda: False)
    written = [events.stock("a", 1), events.stock("b", 1)]
    apply(world, *written)
    poller.round("stock")
    apply(world, events.stock("a", 2))
    line.before = lambda: clear(world.client, world.settings.topic_prefix)
    assert poller.round("stock") == Moved("stock", more=True)
    assert isinstance(poller.round("stock"), Wait)
    assert sql_differences(url, reference_of(written)) == []
    line.close()
    target.close()


def test_what_changes_while_all_rows_are_read_is_not_lost(
    world: World, tmp_path: Path, servers: ServersAddress
) -> None:
    url = f"sqlite:///{tmp_path}/views.db"
    target, line = (
        Target(address(url), world.settings.topic_prefix),
        DisturbedLine(servers.redis_url),
    )
    target.prepare()
    poller = Poller(world.settings.topic_prefix, line, target, lambda _: None, lambda: False)
    written = [events.stock("a", 1), events.stock("b", 1)]
    later = [events.stock("a", 2), events.tombstone("inventory", "b", 2), events.stock("c", 1)]
    apply(world, *written)
    line.after = lambda: apply(world, *later)
    first = poller.round("stock")
    assert isinstance(first, Moved)
    assert (first.passed, first.more) == ("first", True)
    # It is open whether the scan meets what comes or goes while it is under way.
    assert first.written in (1, 2, 3)
    second = poller.round("stock")
    assert isinstance(second, Moved)
    assert (second.passed, second.written) == (None, 2), "it follows what changed meanwhile"
    assert sql_differences(url, reference_of(written + later)) == []
    line.close()
    target.close()


def test_a_follower_that_missed_forgotten_deletions_reads_everything(
    world: World, tmp_path: Path, servers: ServersAddress
) -> None:
    gone, last, alive = SAME_BUCKET[:3]
    url = f"sqlite:///{tmp_path}/views.db"
    target, line = Target(address(url), world.settings.topic_prefix), Line(servers.redis_url)
    target.prepare()
    poller = Poller(world.settings.topic_prefix, line, target, lambda _: None, lambda: False)
    written = [events.stock(sku, 1) for sku in (gone, last, alive)]
    apply(world, *written)
    assert poller.round("stock") == Moved("stock", 3, 0, more=True, passed="first")
    cursor = target.stand("stock").cursors[0]
    later = [events.tombstone("inventory", gone, 2), events.tombstone("inventory", last, 2)]
    apply(world, later[0])
    _age(world, "stock", gone)
    apply(world, later[1])
    assert removed(world, "stock", gone)[""] < cursor, "it was seen before: no reason to read all"
    assert poller.round("stock").deleted == 1  # type: ignore[union-attr]
    changed, horizon = world.keys("stock").stamps(0)
    world.client.zadd(horizon, {"": target.stand("stock").cursors[0] + 1})
    world.client.zadd(changed, {alive: target.stand("stock").cursors[0] + 2})
    assert poller.round("stock") == Moved("stock", 1, 1, more=True, passed="too_old")
    assert sql_differences(url, reference_of(written + later)) == []
    line.close()
    target.close()
