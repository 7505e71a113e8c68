"""A store that is fed with histories of partitions (tests/support/view_histories.py): for property tests.

Within a partition the order is kept; what may happen is that records come in any cut of batches, again
from an older offset, partly (a worker died between two pipelines), or after Redis lost everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from readmodels import Queries, positions
from readmodels.keys import Keys
from readmodels.records import Unreadable, read
from readmodels.scripts import load_commands
from readmodels.steps import Steps, drive
from readmodels.views import VIEWS
from runtime.embedded import ServersAddress
from runtime.redis import Line, connect
from runtime.settings import Settings
from tests.support.events import Record
from tests.support.view_histories import PARTITIONS
from tests.support.views import content, settings_for


@dataclass
class World:
    """One Redis, one generation of each view, and how far each partition is. ``spread``: see `keys.Keys`."""

    settings: Settings
    line: Line
    client: redis.Redis
    queries: Queries
    generation: int = 1
    spread: bool = False
    at: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))

    def keys(self, view: str) -> Keys:
        return Keys(self.settings.topic_prefix, view, self.generation, self.spread)

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


@contextmanager
def store(servers: ServersAddress, prefix: str, home: Path) -> Iterator[World]:
    """A store that is empty, and is emptied in the end."""
    settings_ = settings_for(servers, prefix, home)
    line, client = Line(servers.redis_url), connect(settings_)
    with Queries(settings_) as queries:
        yield World(settings_, line, client, queries)
    clear(client, prefix)
    line.close()
    client.close()


def clear(client: redis.Redis, prefix: str) -> None:
    """As FLUSHALL, for one prefix."""
    for key in list(client.scan_iter(match=f"{prefix}:*", count=1_000)):
        client.delete(key)


def partly(line: Line, steps: Steps[bool], pipelines: int) -> None:
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
