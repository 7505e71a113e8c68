"""Back to the generation that was live before the last rebuild; or be rid of it.

It was not fed since the switch, so it is first brought to the end of the topics from its own positions. The
one that was live takes its place: rolling back twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from readmodels import generations, positions, standing
from readmodels.filling import Filling
from readmodels.generations import Lock, RebuildFailed
from readmodels.keys import Keys
from readmodels.preflight import watermarks
from readmodels.rebuilding import OnProgress
from readmodels.standing import Left, Standing
from readmodels.steps import drive
from readmodels.views import View, named
from runtime.redis import Line, is_cluster, new_line
from runtime.settings import Settings
from runtime.topic_admin import require, topic_ids, topics_of


@dataclass(frozen=True, slots=True)
class RolledBack:
    """One view. ``records``: how many were read, by all views together, to bring it up to date."""

    view: str
    from_generation: int
    to_generation: int
    records: int


def rollback(
    settings: Settings, views: Iterable[str] | None = None, on_progress: OnProgress | None = None
) -> tuple[RolledBack, ...]:
    """Make the previous generation of these views (all that have one, if none are named) live again.

    Raises RebuildFailed where there is none, or it has been away too long; TopicsUnfit, KafkaException,
    RedisError. Then nothing has been switched.
    """
    require(settings)
    line, spread = new_line(settings), is_cluster(settings)
    prefix = settings.topic_prefix
    try:
        with Lock(settings) as lock:
            stood = drive(line, standing.read(prefix, named(views)))
            chosen = _chosen(named(views), stood, every=views is not None)
            old = {
                view: Keys(prefix, view.name, left.generation, spread)
                for view, left in chosen.items()
            }
            _check_topics(settings, line, old)
            marks = watermarks(settings, list(old))
            with Filling(settings, old, line, on_progress or (lambda _: None)) as filling:
                filling.begin({part: low for part, (low, _) in marks.items()})
                filling.read_to({part: high for part, (_, high) in marks.items()})
                lock.require()
                filling.require_positions()
                now = {view.name: keys.generation for view, keys in old.items()}
                now_ms = time.time_ns() // 1_000_000
                kept = {name: Left(stood[name].live, now_ms) for name in now}
                if not drive(line, standing.switch(prefix, stood, now, kept)):
                    raise RebuildFailed("somebody else switched generations meanwhile; try again")
            return tuple(
                RolledBack(name, stood[name].live, generation, filling.records)
                for name, generation in now.items()
            )
    finally:
        line.close()


def discard_previous(settings: Settings, views: Iterable[str] | None = None) -> int:
    """Remove the previous generations of these views; returns how many keys they had.

    Raises RebuildRunning, RedisError.
    """
    wanted = named(views)
    line = new_line(settings)
    prefix = settings.topic_prefix
    try:
        with Lock(settings):
            stood = drive(line, standing.read(prefix, wanted))
            drive(line, standing.forget(prefix, wanted, previous=True))
            return sum(
                generations.remove(line, Keys(prefix, view.name, left.generation))
                for view in wanted
                if (left := stood[view.name].previous) is not None
            )
    finally:
        line.close()


def _chosen(wanted: Sequence[View], stood: dict[str, Standing], *, every: bool) -> dict[View, Left]:
    chosen: dict[View, Left] = {}
    now_ms = time.time_ns() // 1_000_000
    for view in wanted:
        left = stood[view.name].previous
        if left is not None and not left.is_fresh(now_ms):
            raise RebuildFailed(
                f"the previous generation of {view.name} was last fed too long ago: deletions that it has"
                " not seen may be gone from the topic"
            )
        if left is not None:
            chosen[view] = left
        elif every:
            raise RebuildFailed(f"the view {view.name} has no previous generation")
    if not chosen:
        raise RebuildFailed("no view has a previous generation")
    return chosen


def _check_topics(settings: Settings, line: Line, old: dict[View, Keys]) -> None:
    for view, keys in old.items():
        topic = topics_of(settings).events(view.aggregate)
        (claimed,) = drive(line, positions.topics([keys], topic))
        if claimed != topic_ids(settings, [topic])[topic]:
            raise RebuildFailed(
                f"the previous generation of {view.name} was made from another {topic}"
            )
