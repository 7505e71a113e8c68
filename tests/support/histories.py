"""Histories of partitions as processors write them, and a store that is fed with them: for property tests.

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
from hypothesis import strategies as st

from readmodels import Queries, positions
from readmodels.keys import Keys
from readmodels.records import Unreadable, read
from readmodels.scripts import load_commands
from readmodels.steps import Steps, drive
from readmodels.views import VIEWS
from runtime.embedded import ServersAddress
from runtime.redis import Line, connect
from runtime.settings import Settings
from schemas.money import MAX_AMOUNT
from schemas.order import OrderStatus
from schemas.saga import SagaStatus
from tests.support import events
from tests.support.events import Record
from tests.support.views import content, settings_for

PARTITIONS = 2
IDS = st.sampled_from(["a", "b", "c", "d"])
SAGA_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "correlation_id": st.just("c-1"),
        "code": st.just("timed_out"),
        "message": st.sampled_from(["", "no answer"]),
        "wakes_at_ms": st.sampled_from([0, events.NOON_MS]),
        "undone": st.sampled_from([("one",), ("two", "one")]),
        "resolved_by": st.just("ann"),
    },
)
USERS = st.sampled_from(["u-1", "u-2", "u-3"])


@st.composite
def histories(draw: st.DrawFn) -> list[list[Record]]:
    """Per partition: records as processors write them: versions 1..n of each key, deletions, debris."""
    partitions: list[list[Record]] = []
    for number in range(PARTITIONS):
        versions: dict[tuple[str, str], int] = {}
        log: list[Record] = []
        for _ in range(draw(st.integers(0, 25))):
            aggregate = draw(
                st.sampled_from(["order", "order", "order", "inventory", "user", "saga"])
            )
            key = f"{draw(IDS)}{number}"
            version = versions.get((aggregate, key), 0) + 1
            what = draw(st.integers(0, 19))
            if what == 0:
                log.append(Record(aggregate, key, b"{not json"))
                continue
            if what == 1:
                log.append(Record(aggregate, f"{key}/part", None))
                continue
            if what == 2:
                versions[aggregate, key] = 0
                log.append(events.tombstone(aggregate, key, None))
                continue
            versions[aggregate, key] = version
            if what in (3, 4):
                log.append(events.tombstone(aggregate, key, version))
            else:
                log.append(draw(an_event(aggregate, key, version)))
        partitions.append(log)
    return partitions


@st.composite
def an_event(draw: st.DrawFn, aggregate: str, key: str, version: int) -> Record:
    """Any state of an aggregate at a version."""
    if aggregate == "inventory":
        on_hand = draw(st.integers(0, 12))
        reserved = draw(st.integers(0, on_hand))
        return events.stock(key, version, on_hand=on_hand, reserved=reserved)
    if aggregate == "user":
        email = draw(st.none() | st.just("a@b.c"))
        return events.user(key, version, email=email, active=draw(st.booleans()))
    if aggregate == "saga":
        status = draw(st.sampled_from(SagaStatus))
        answers = draw(st.sampled_from(["A", "+", "+-", "++=", "Ab"]))
        moved = draw(st.integers(0, 2))
        undo_answers = draw(st.sampled_from(["", "A", "+ ", "+-= a"]))
        return events.saga(
            key,
            version,
            status=status,
            moved=moved,
            answers=answers,
            undo_answers=undo_answers,
            **draw(SAGA_FIELDS),
        )
    return events.order(
        key,
        version,
        user=draw(USERS),
        status=draw(st.sampled_from(OrderStatus)),
        total=draw(st.sampled_from([0, 1, 999, MAX_AMOUNT - 1, MAX_AMOUNT])),
        currency=draw(st.sampled_from(["EUR", "USD"])),
        created=events.NOON_MS + draw(st.integers(0, 2)),
    )


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
                    change = read(record.key_bytes, record.value, record.headers, view.project)
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
