"""Where the views are: behind what is there, and not behind what only looks like something."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from readmodels import Consistency, Inconsistent
from runtime.embedded import ServersAddress
from tests.support import events
from tests.support.projecting import World, life


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    one = World(servers, prefix, tmp_path)
    yield one
    one.close()


def test_views_are_behind_until_they_have_everything(world: World) -> None:
    began = time.monotonic()
    world.commit(*life(20))
    with Consistency(world.settings) as views:
        time.sleep(0.2)
        status = {one.view: one for one in views.status()}
        age = time.monotonic() - began + 1
        assert not any(one.consistent for one in status.values())
        for one in status.values():
            assert 0.2 <= one.seconds < age
            assert one.events == sum(part.end - part.position for part in one.partitions)
        with pytest.raises(Inconsistent, match="orders by"):
            views.wait_until_consistent(0.3)
        run = CliRunner().invoke(app, ("consistency", "--json"), env=world.env)
        assert run.exit_code == Exit.NO
        assert json.loads(run.stdout)["consistent"] is False
        run = CliRunner().invoke(app, ("consistency", "--wait", "0.2"), env=world.env)
        assert run.exit_code == Exit.TIMEOUT
        with world.projector():
            views.wait_until_consistent(60)
            assert all(one.consistent and one.seconds == 0 for one in views.status())
            world.commit(events.order("o-1", 8))
            assert views.wait_for_version("orders", "o-1", 8, 30) == 8
            run = CliRunner().invoke(app, ("consistency", "--wait", "60", "--json"), env=world.env)
            assert run.exit_code == Exit.OK
            assert json.loads(run.stdout)["consistent"] is True
            (row, *_) = [one for one in world.queries.lag() if one.view == "users"]
            with pytest.raises(Inconsistent, match="not beyond"):
                views.wait_for_offset("users", (row.topic, row.partition), row.end + 9, 0.2)
            views.wait_for_offset("users", (row.topic, row.partition), row.end - 1, 30)


def test_holes_at_the_end_are_no_lag(world: World) -> None:
    """Markers of transactions, and what was aborted; and nobody runs who could step over them."""
    with Consistency(world.settings) as views:
        world.producer.abort([events.user("u-1", 1), events.order("o-1", 1)])
        assert any(one.end for view in views.status() for one in view.partitions)
        assert all(one.consistent for one in views.status())
        views.wait_until_consistent(10)
        world.producer.leave_open([events.user("u-2", 1)])
        by_view = {one.view: one for one in views.status()}
        assert not by_view["users"].consistent, "what is open may be committed yet"
        with pytest.raises(Inconsistent):
            views.wait_until_consistent(0.5)
