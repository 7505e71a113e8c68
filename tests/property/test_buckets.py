"""What some buckets of a view have lost is read again, whatever the others have kept.

So it is on a cluster, where each server fails over by itself, to a replica that is behind by any number of
writes. Here one Redis plays all servers: what belongs to some buckets is put back to where it once was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readmodels import positions
from readmodels.keys import Keys
from readmodels.steps import drive
from readmodels.views import VIEWS
from runtime.embedded import ServersAddress
from runtime.redis import connect
from tests.support.events import Record
from tests.support.histories import World, clear, partly, store
from tests.support.memory_views import PREFIX, filled
from tests.support.view_histories import PARTITIONS, histories
from tests.support.views import differences, reference_of

pytestmark = pytest.mark.integration

SERVERS: Final = 3
BUCKET: Final = re.compile(rb"\{[a-z]+-(\d+)\}")


@pytest.fixture
def world(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[World]:
    with store(servers, prefix, tmp_path) as made:
        made.spread = True
        yield made


class Servers:
    """Each has every third bucket of every view."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._client: Any = connect(world.settings, text=False)
        self._replicas: list[dict[bytes, bytes]] = [{} for _ in range(SERVERS)]

    def replicate(self, server: int) -> None:
        """Its replica has everything."""
        self._replicas[server] = {key: self._client.dump(key) for key in self._keys(server)}

    def fail(self, server: int) -> None:
        """Its replica takes over."""
        for key in self._keys(server):
            self._client.delete(key)
        for key, value in self._replicas[server].items():
            self._client.restore(key, 0, value)

    def close(self) -> None:
        self._client.close()

    def _keys(self, server: int) -> list[bytes]:
        found = self._client.scan_iter(match=f"{self._world.settings.topic_prefix}:*", count=1_000)
        return [key for key in found if int(BUCKET.findall(key)[0]) % SERVERS == server]


@given(histories=histories(orders_stay=True), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_one_server_has_lost_is_read_again(
    world: World, histories: list[list[Record]], data: st.DataObject
) -> None:
    clear(world.client, world.settings.topic_prefix)
    world.begin()
    at = dict.fromkeys(range(PARTITIONS), 0)
    servers = Servers(world)
    for _ in range(data.draw(st.integers(0, 30))):
        number, server = (data.draw(st.integers(0, n - 1)) for n in (PARTITIONS, SERVERS))
        start = at[number]
        records = histories[number][start : start + data.draw(st.integers(1, 12))]
        match data.draw(st.integers(0, 9)):
            case 0:
                steps = world.steps(number, records, start)
                partly(world.line, steps, data.draw(st.integers(1, 4)))
            case 1 | 2 | 3:
                servers.replicate(server)
            case 4 | 5:
                servers.fail(server)
            case _:
                drive(world.line, world.steps(number, records, start))
                at[number] = where_redis_is(world, number)
    for number, log in enumerate(histories):
        for _ in range(2):  # the first may only say that Redis is not where it was thought to be
            start = where_redis_is(world, number)
            drive(world.line, world.steps(number, log[start:], start))
        assert where_redis_is(world, number) == len(log)
    servers.close()

    everything = [record for log in histories for record in log]
    assert differences(world.queries, reference_of(everything)) == []
    kept = filled(everything)
    assert world.contents() == {v.name: kept.content(Keys(PREFIX, v.name, 1)) for v in VIEWS}


def where_redis_is(world: World, number: int) -> int:
    """Where a projector reads on."""
    world.begin()  # what was emptied begins at the beginning
    found = drive(world.line, positions.read([world.keys(view.name) for view in VIEWS]))
    return min(at["t", number] for at in found)
