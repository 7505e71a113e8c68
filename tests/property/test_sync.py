"""The tables end as the views are, whatever was changed, deleted, emptied, rebuilt or killed between polls.

What happens to the views, tests/support/histories.py has; here it also happens in the middle of a poll,
between two of its conversations with Redis, and a second process may work on the same target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readmodels.keys import views_key
from readmodels.steps import drive
from runtime.embedded import ServersAddress
from runtime.redis import Command, Line, Reply
from sync import polling, source
from sync.polling import Moved, Poller
from sync.rows import ROW_TYPES
from sync.target import Target, address
from tests.support.events import Record
from tests.support.histories import World, clear, partly, store
from tests.support.sql import sql_differences
from tests.support.view_histories import PARTITIONS, histories
from tests.support.views import reference_of

pytestmark = pytest.mark.integration

ROUNDS = 200


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    with store(servers, prefix, tmp_path) as made:
        yield made


class DisturbedLine(Line):
    """Something may happen before each pipeline."""

    disturb: Callable[[], None] = staticmethod(lambda: None)

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        self.disturb()
        return super().run(commands)


class Life:
    """What happens to the views, drawn by hypothesis; the pollers live beside it."""

    def __init__(
        self, world: World, histories: list[list[Record]], data: st.DataObject, url: str, redis: str
    ) -> None:
        self.world, self.histories, self.data, self.url = world, histories, data, url
        self.line = DisturbedLine(redis)
        self.plain = Line(redis)
        self.pollers = [self.poller(self.line), self.poller(self.plain)]

    def poller(self, line: Line) -> Poller:
        """A process that has just started."""
        target = Target(address(self.url), self.world.settings.topic_prefix)
        target.prepare()
        return Poller(self.world.settings.topic_prefix, line, target, lambda _: None, lambda: False)

    def close(self) -> None:
        self.line.close()
        self.plain.close()

    def happen(self) -> None:
        """One thing to the views."""
        number = self.data.draw(st.integers(0, PARTITIONS - 1))
        world, start = self.world, self.world.at[number]
        records = self.histories[number][start : start + self.data.draw(st.integers(1, 12))]
        match self.data.draw(st.integers(0, 12)):
            case 0:
                steps = world.steps(number, records, start)
                partly(world.line, steps, self.data.draw(st.integers(1, 4)))
            case 1:
                world.at[number] = self.data.draw(st.integers(0, start))
            case 2:
                self.flush()
            case 3:
                self.rebuild()
            case _:
                self.apply(number, records)

    def apply(self, number: int, records: list[Record]) -> None:
        start = self.world.at[number]
        if drive(self.world.line, self.world.steps(number, records, start)):
            self.world.at[number] = start + len(records)

    def flush(self) -> None:
        clear(self.world.client, self.world.settings.topic_prefix)
        self.world.generation = 1
        self.world.begin()
        self.world.at = dict.fromkeys(range(PARTITIONS), 0)

    def rebuild(self) -> None:
        """A new generation with what there is, live at once; the old one is removed."""
        world, old = self.world, self.world.generation
        world.generation += 1
        world.begin()
        for number, log in enumerate(self.histories):
            assert drive(world.line, world.steps(number, log[: world.at[number]], 0))
        key = views_key(world.settings.topic_prefix)
        world.client.hset(key, mapping=dict.fromkeys(ROW_TYPES, world.generation))
        stems = (f"{world.settings.topic_prefix}:{view}:g{old}:*" for view in ROW_TYPES)
        for stem in stems:
            for found in list(world.client.scan_iter(match=stem, count=1_000)):
                world.client.delete(found)

    def poll(self) -> None:
        """A round of one view by one of the processes; the first is disturbed while it is at it."""
        who = self.data.draw(st.integers(0, 1))
        self.line.disturb = self.disturb
        self.pollers[who].round(self.data.draw(st.sampled_from(list(ROW_TYPES))))
        self.line.disturb = lambda: None

    def disturb(self) -> None:
        what = self.data.draw(st.integers(0, 7))
        if what == 0:
            self.happen()
        elif what == 1:
            self.pollers[1].round(self.data.draw(st.sampled_from(list(ROW_TYPES))))

    def kill(self) -> None:
        """A process ends between two transactions, and another one starts."""
        who = self.data.draw(st.integers(0, 1))
        self.pollers[who] = self.poller((self.line, self.plain)[who])

    def finish(self) -> None:
        """The views come to their end, and the processes with them."""
        for number, log in enumerate(self.histories):
            self.apply(number, log[self.world.at[number] :])
        assert all(self.world.at[n] == len(log) for n, log in enumerate(self.histories))
        for _ in range(ROUNDS):
            answers: list[Any] = [p.round(view) for view in ROW_TYPES for p in self.pollers]
            if all(isinstance(one, Moved) and not one.more for one in answers):
                return
        raise AssertionError(f"after {ROUNDS} rounds: {answers}")


@given(histories=histories(), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_tables_end_as_the_views_are(
    world: World,
    servers: ServersAddress,
    tmp_path_factory: pytest.TempPathFactory,
    histories: list[list[Record]],
    data: st.DataObject,
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('target')}/views.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "PAGE", 2)  # so that stamps are cut
        patch.setattr(polling, "PATIENCE_S", 0.0)
        life = Life(world, histories, data, url, servers.redis_url)
        life.flush()
        for _ in range(data.draw(st.integers(0, 40))):
            match data.draw(st.integers(0, 5)):
                case 0 | 1:
                    life.happen()
                case 2:
                    life.kill()
                case _:
                    life.poll()
        life.finish()
        life.close()

    everything = [record for log in histories for record in log]
    assert sql_differences(url, reference_of(everything)) == []
