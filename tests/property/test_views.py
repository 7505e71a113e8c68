"""The real store on a real Redis says what the straightforward fold says, whatever the broker's ways.

Within a partition the order is kept; what may happen is that records come in any cut of batches, again
from an older offset, partly (a worker died between two pipelines), or after Redis lost everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readmodels import Queries, positions, questions
from readmodels.keys import Keys
from readmodels.records import Unreadable, read
from readmodels.scripts import load_commands
from readmodels.steps import Steps, drive
from readmodels.views import SAGAS, VIEWS
from runtime.embedded import ServersAddress
from runtime.redis import Line, connect
from runtime.settings import Settings
from schemas.money import MAX_AMOUNT
from schemas.order import OrderStatus
from schemas.saga import SagaStatus
from tests.support import events
from tests.support.events import Record
from tests.support.memory_views import PREFIX, filled
from tests.support.view_histories import PARTITIONS, histories, late_and_repeated
from tests.support.views import content, differences, reference_of, settings_for

pytestmark = pytest.mark.integration


@dataclass
class World:
    """One Redis, one generation of each view, and how far each partition is."""

    settings: Settings
    line: Line
    client: redis.Redis
    queries: Queries
    generation: int = 1
    at: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))

    def keys(self, view: str) -> Keys:
        return Keys(self.settings.topic_prefix, view, self.generation)

    def begin(self) -> None:
        for view in VIEWS:
            starts = {("t", number): 0 for number in range(PARTITIONS)}
            drive(self.line, positions.begin(self.keys(view.name), starts))

    def steps(self, number: int, records: list[Record], start: int) -> Steps[bool]:
        batch = []
        for view in VIEWS:
            changes: list[Any] = []
            for record in records:
                if record.aggregate != view.aggregate:
                    continue
                try:
                    change = read(
                        record.key_bytes, record.value, record.headers, view.states, view.project
                    )
                except Unreadable:
                    continue
                if change is not None:
                    changes.append(change)
            batch.append((view, self.keys(view.name), changes))
        covers = {("t", number): (start, start + len(records))}
        return positions.apply_batch(batch, covers)

    def contents(self) -> dict[str, Any]:
        return {view.name: content(self.client, self.keys(view.name)) for view in VIEWS}


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    settings_ = settings_for(servers, prefix, tmp_path)
    line, client = Line(servers.redis_url), connect(settings_)
    with Queries(settings_) as queries:
        yield World(settings_, line, client, queries)
    _clear(client, prefix)
    line.close()
    client.close()


def _clear(client: redis.Redis, prefix: str) -> None:
    for key in list(client.scan_iter(match=f"{prefix}:*", count=1_000)):
        client.delete(key)


def _partly(line: Line, steps: Steps[bool], pipelines: int) -> None:
    """A worker that dies after some pipelines of a batch."""
    line.run(load_commands())
    replies: Any = None
    for _ in range(pipelines):
        try:
            request = next(steps) if replies is None else steps.send(replies)
        except StopIteration:
            return
        assert isinstance(request, list)
        replies = line.run(request) if request else []
    steps.close()


@given(histories=histories(), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_views_say_what_the_reference_says(
    world: World, histories: list[list[Record]], data: st.DataObject
) -> None:
    _clear(world.client, world.settings.topic_prefix)
    world.client.script_flush()
    world.begin()
    world.at = dict.fromkeys(range(PARTITIONS), 0)
    for _ in range(data.draw(st.integers(0, 30))):
        number = data.draw(st.integers(0, PARTITIONS - 1))
        start = world.at[number]
        count = data.draw(st.integers(1, 12))
        records = histories[number][start : start + count]
        match data.draw(st.integers(0, 9)):
            case 0:
                _partly(
                    world.line, world.steps(number, records, start), data.draw(st.integers(1, 4))
                )
            case 1:
                world.at[number] = data.draw(st.integers(0, start))  # read again
            case 2:
                _clear(world.client, world.settings.topic_prefix)  # FLUSHALL
                world.begin()
                world.at = dict.fromkeys(range(PARTITIONS), 0)
            case _:
                if drive(world.line, world.steps(number, records, start)):
                    world.at[number] = start + len(records)
    for number, log in enumerate(histories):
        assert drive(world.line, world.steps(number, log[world.at[number] :], world.at[number]))

    everything = [record for log in histories for record in log]
    assert differences(world.queries, reference_of(everything)) == []

    live = world.contents()
    assert in_memory(everything) == live, "the store without Redis does not keep the same"
    world.generation = 2
    try:
        world.begin()
        for number, log in enumerate(histories):
            assert drive(world.line, world.steps(number, _compacted(log), 0))
        assert world.contents() == live, "a rebuild from the compacted topic is not the same"
    finally:
        world.generation = 1


def in_memory(records: list[Record]) -> dict[str, Any]:
    """What the shipped store without a Redis keeps of the same records."""
    store = filled(records)
    return {view.name: store.content(Keys(PREFIX, view.name, 1)) for view in VIEWS}


def _compacted(log: list[Record]) -> list[Record]:
    """What the cleaner may leave: the newest readable record of each key.

    It knows nothing of unreadable records; a topic whose newest record of a key is unreadable has
    lost the state before it, and no reader can do anything about that. So those are not compacted here.
    """
    broken = {(r.aggregate, r.key) for r in log if r.value is not None and b"not json" in r.value}
    newest = {(r.aggregate, r.key): index for index, r in enumerate(log)}
    return [
        r
        for index, r in enumerate(log)
        if (r.aggregate, r.key) in broken or newest[r.aggregate, r.key] == index
    ]


def test_sums_beyond_what_a_double_or_64_bits_hold_stay_exact(world: World) -> None:
    world.begin()
    records = [
        events.order(f"o-{n}", 1, user="rich", total=MAX_AMOUNT - n % 7) for n in range(1_200)
    ]
    assert drive(world.line, world.steps(0, records, 0))
    cancelled = [
        events.order(
            f"o-{n}", 2, user="rich", total=MAX_AMOUNT - n % 7, status=OrderStatus.CANCELLED
        )
        for n in range(0, 1_200, 2)
    ]
    assert drive(world.line, world.steps(0, cancelled, 1_200))

    rich = world.queries.user("rich")

    wanted = sum(MAX_AMOUNT - n % 7 for n in range(1, 1_200, 2))
    assert rich is not None
    assert rich.spent == {"EUR": wanted}
    assert rich.by_status == {"cancelled": 600, "created": 600}
    assert wanted > 2**62


def test_a_late_older_record_does_not_revive_a_deleted_order(world: World) -> None:
    world.begin()
    first = [events.order("o-1", 1)]
    assert drive(world.line, world.steps(0, first, 0))
    world.line.run(load_commands())
    halted = world.steps(0, [events.order("o-1", 2)], 1)
    request: Any = next(halted)
    replies = world.line.run(request)  # the zombie has found the place, and stands still
    assert drive(world.line, world.steps(0, [events.order("o-1", 2)], 1))
    assert drive(world.line, world.steps(0, [events.tombstone("order", "o-1", 3)], 2))

    while True:  # and goes on
        try:
            request = halted.send(replies)
        except StopIteration:
            break
        replies = world.line.run(request) if request else []

    assert world.queries.order("o-1") is None
    assert world.queries.user("u-1") is None


def test_a_deletion_after_a_death_between_two_pipelines_leaves_nothing(world: World) -> None:
    """The place is written, the order too, the position is not; then only the tombstone is left to read."""
    for pipelines in (1, 2, 3):
        _clear(world.client, world.settings.topic_prefix)
        world.begin()
        _partly(world.line, world.steps(0, [events.order("o-1", 1)], 0), pipelines)
        tombstone = [events.tombstone("order", "o-1", 2)]
        steps = world.steps(0, tombstone, 1 if pipelines == 3 else 0)
        assert drive(world.line, steps)
        assert world.contents()["orders"] == {}


@given(records=late_and_repeated())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_sagas_in_any_order_and_repeated_stand_once_where_the_newest_record_says(
    world: World, records: tuple[list[Record], list[Record]]
) -> None:
    written, brought = records
    _clear(world.client, world.settings.topic_prefix)
    keys = world.keys(SAGAS.name)
    for record in brought:
        change = read(record.key_bytes, record.value, record.headers, SAGAS.states, SAGAS.project)
        assert change is not None
        drive(world.line, SAGAS.apply(keys, [change]))

    reference = reference_of(written)

    assert differences(world.queries, reference) == []
    found = content(world.client, keys)
    ranked = [member for name in found if "by-status" in name for member, _ in found[name]]
    assert sorted(ranked) == sorted(reference.sagas())


@pytest.mark.parametrize(
    ("asked", "before", "after", "listed"),
    [
        (None, SagaStatus.NEEDS_OPERATOR, SagaStatus.COMPENSATING, ["s"]),
        (None, SagaStatus.RUNNING, SagaStatus.COMPENSATING, ["s"]),
        (None, SagaStatus.RUNNING, SagaStatus.COMPLETED, []),
        ("running", SagaStatus.RUNNING, SagaStatus.COMPENSATING, []),
        ("completed", SagaStatus.COMPLETED, SagaStatus.COMPENSATING, []),
    ],
)
def test_a_saga_that_moves_while_it_is_listed_is_there_once_or_not_of_that_status(
    world: World, asked: str | None, before: SagaStatus, after: SagaStatus, listed: list[str]
) -> None:
    world.begin()
    assert drive(world.line, world.steps(0, [events.saga("s", 1, status=before)], 0))
    asking = questions.sagas(world.settings.topic_prefix, asked, 10)
    request: Any = next(asking)
    request = asking.send(world.line.run(request))
    rankings = world.line.run(request)
    assert drive(world.line, world.steps(0, [events.saga("s", 2, status=after)], 1))

    assert [saga.saga_id for saga in _rest(world.line, asking, rankings)] == listed


def _rest(line: Line, asking: Steps[Any], replies: Any) -> Any:
    """What a conversation that has stood still comes to."""
    while True:
        try:
            request = asking.send(replies)
        except StopIteration as done:
            return done.value
        assert isinstance(request, list)
        replies = line.run(request) if request else []


def test_a_position_is_refused_where_redis_lacks_what_lies_before(world: World) -> None:
    world.begin()
    assert drive(world.line, world.steps(0, [events.order("o-1", 1)], 0))
    _clear(world.client, world.settings.topic_prefix)
    assert not drive(world.line, world.steps(0, [events.order("o-2", 1)], 1))
