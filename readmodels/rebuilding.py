"""Rebuild views from offset zero while the live ones serve, prove that they are equal, and switch.

A fresh generation is filled by the same code that feeds the live one, from every partition's beginning to
the end it had when the rebuild began. Old and new are compared at one position vector (`comparison`). If
they are equal, one write makes the new generation live; queries and projectors follow within a second, and
the one before is kept for `rollback`. If not, the old one serves on and the new one stays for inspection.

Killed at any moment before the switch, the old generation goes on serving, and the next rebuild reads on
where the new one is. Invariant: only this module and `rollback` switch, and only under the lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from readmodels import generations, positions, standing
from readmodels.comparison import Comparison, compare
from readmodels.filling import Filling, Progress
from readmodels.generations import Lock, RebuildFailed
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.preflight import watermarks
from readmodels.spreading import spread
from readmodels.staging import LiveBehind, Staging
from readmodels.standing import Left, Standing
from readmodels.steps import drive
from readmodels.views import View, named
from runtime.redis import Line, is_cluster, new_line
from runtime.settings import Settings
from runtime.topic_admin import require, topic_ids, topics_of

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
Watermarks = Mapping[TopicPart, tuple[int, int]]

FOLLOW_S: Final = 2.5
"""Projectors look for a new generation twice a second; until then they write to the old one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to rebuild. ``accept_differences``: switch although old and new differ. ``dry_run``: build,
    compare, discard; nothing stays. ``fresh``: do not go on with what an earlier rebuild has left.
    ``records_per_s``: read no faster than that, all together, which one process does. ``processes``: read
    with so many, at most one a partition; None: one a core, if there is enough to read.
    """

    accept_differences: bool = False
    dry_run: bool = False
    fresh: bool = False
    records_per_s: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What became of one view. ``resumed``: an earlier rebuild had begun the new generation."""

    view: str
    old_generation: int
    new_generation: int
    resumed: bool
    keys: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did. ``unreadable``: records no view can use; they stand in the dead letters.
    ``switched``: the new generations are live. ``processes``: how many read.
    """

    views: tuple[ViewReport, ...]
    records: int
    unreadable: int
    seconds: float
    keys_removed: int
    switched: bool
    processes: int

    @property
    def equal(self) -> bool:
        """Whether every view that could be compared was the same, key for key and byte for byte."""
        return all(one.comparison.agrees for one in self.views)


def rebuild(
    settings: Settings,
    views: Iterable[str] | None = None,
    on_progress: OnProgress | None = None,
    plan: Plan | None = None,
) -> RebuildReport:
    """Rebuild these views (all, if none are named) and switch to them, all or none.

    Raises RebuildFailed (RebuildRunning when another one is at it), TopicsUnfit, KafkaException or
    RedisError; then nothing has been switched.
    """
    wanted = named(views)
    require(settings)
    line = new_line(settings)
    try:
        with Lock(settings) as lock:
            told = on_progress or (lambda _: None)
            one = _Rebuild(settings, wanted, line, lock, on_progress=told, plan=plan or Plan())
            return one.run()
    finally:
        line.close()


class _Rebuild:
    def __init__(
        self,
        settings: Settings,
        views: Sequence[View],
        line: Line,
        lock: Lock,
        *,
        on_progress: OnProgress,
        plan: Plan,
    ) -> None:
        self._settings = settings
        self._prefix = settings.topic_prefix
        self._spread = is_cluster(settings)
        self._views = views
        self._line = line
        self._lock = lock
        self._on_progress = on_progress
        self._plan = plan
        self._started = time.monotonic()
        topics = topics_of(settings)
        self._topics = {view.name: topics.events(view.aggregate) for view in views}
        self._ids = topic_ids(settings, list(self._topics.values()))
        self._resumed: set[str] = set()

    def run(self) -> RebuildReport:
        """The whole of it."""
        stood = drive(self._line, standing.read(self._prefix, self._views))
        new = self._claim(stood)
        try:
            return self._build(stood, new)
        finally:
            if self._plan.dry_run:
                for keys in new.values():
                    generations.remove(self._line, keys)

    def _build(self, stood: Mapping[str, Standing], new: Mapping[View, Keys]) -> RebuildReport:
        plan = self._plan
        marks = watermarks(self._settings, self._views)
        with Filling(
            self._settings, new, self._line, self._on_progress, plan.records_per_s
        ) as filling:
            for view, keys in new.items():
                self._claim_topic(view, keys)
            filling.begin({part: low for part, (low, _) in marks.items()})
            processes = self._by_several(new, filling, marks)
            filling.read_to({part: high for part, (_, high) in marks.items()})
            found = {
                view.name: self._compare(view, stood[view.name], keys, filling, marks)
                for view, keys in new.items()
            }
            counts = {view.name: self._count(keys) for view, keys in new.items()}
            agreed = all(one.agrees for one in found.values())
            switched = not plan.dry_run and (agreed or plan.accept_differences)
            if switched:
                self._lock.require()
                filling.require_positions()
                self._switch(stood, new, found)
        return RebuildReport(
            tuple(
                ViewReport(
                    view.name,
                    stood[view.name].live,
                    keys.generation,
                    view.name in self._resumed,
                    counts[view.name],
                    found[view.name],
                )
                for view, keys in new.items()
            ),
            filling.records,
            filling.unreadable,
            time.monotonic() - self._started,
            self._clear() if switched else 0,
            switched,
            processes,
        )

    def _by_several(self, new: Mapping[View, Keys], filling: Filling, marks: Watermarks) -> int:
        plan = self._plan
        wanted = plan.processes if plan.records_per_s is None else 1
        return spread(
            self._settings, new, filling, marks, wanted=wanted, on_progress=self._on_progress
        )

    def _claim(self, stood: Mapping[str, Standing]) -> dict[View, Keys]:
        """The generations to fill: those that an earlier rebuild began, or fresh ones above all others."""
        new: dict[View, Keys] = {}
        for view in self._views:
            building = stood[view.name].building
            if building and not self._plan.dry_run and self._is_resumable(view, building):
                logger.info("going on with generation %d of %s", building.generation, view.name)
                self._resumed.add(view.name)
                new[view] = self._keys(view, building.generation)
                continue
            found = generations.existing(self._line, self._prefix, view.name)
            above = max(found | stood[view.name].kept) + 1
            new[view] = self._keys(view, above)
            if not self._plan.dry_run:
                left = Left(above, _now_ms(), standing.code())
                drive(self._line, standing.begin(self._prefix, view.name, left))
        if not self._plan.dry_run:
            self._clear()
        return new

    def _is_resumable(self, view: View, left: Left) -> bool:
        keys = self._keys(view, left.generation)
        topic = self._topics[view.name]
        (claimed,) = drive(self._line, positions.topics([keys], topic))
        return (
            not self._plan.fresh
            and left.code == standing.code()
            and left.is_fresh(_now_ms())
            and claimed == self._ids[topic]
        )

    def _keys(self, view: View, generation: int) -> Keys:
        return Keys(self._prefix, view.name, generation, self._spread)

    def _claim_topic(self, view: View, keys: Keys) -> None:
        topic = self._topics[view.name]
        drive(self._line, positions.claim(keys, {topic: self._ids[topic]}))

    def _compare(
        self, view: View, stood: Standing, keys: Keys, filling: Filling, marks: Watermarks
    ) -> Comparison:
        live = self._keys(view, stood.live)
        reason = self._why_nothing_to_compare(view, live, marks)
        if reason:
            return Comparison(compared=0, skipped=f"nothing to compare: {reason}")
        feeds = not self._plan.dry_run
        stage = Staging(self._settings, view, live, filling, lock=self._lock, feeds=feeds)
        try:
            return compare(self._line, view, live, keys, stage)
        except LiveBehind as behind:
            return Comparison(compared=0, skipped=str(behind), behind=True)

    def _why_nothing_to_compare(self, view: View, live: Keys, marks: Watermarks) -> str:
        (at,) = drive(self._line, positions.read([live]))
        if not at:
            return "there was no live view"
        topic = self._topics[view.name]
        (claimed,) = drive(self._line, positions.topics([live], topic))
        if claimed not in (None, self._ids[topic]):
            return f"the live view was made from another {topic}"
        beyond = [part for part, offset in at.items() if part not in marks or offset < 0]
        return f"the live view has positions for {beyond}" if beyond else ""

    def _switch(
        self,
        stood: Mapping[str, Standing],
        new: Mapping[View, Keys],
        found: Mapping[str, Comparison],
    ) -> None:
        now = {view.name: keys.generation for view, keys in new.items()}
        kept = {
            name: None if found[name].skipped else Left(one.live, _now_ms())
            for name, one in stood.items()
        }
        if not drive(self._line, standing.switch(self._prefix, stood, now, kept)):
            raise RebuildFailed("somebody else switched generations meanwhile; rebuild again")
        logger.info("live now: %s", now)
        drive(self._line, standing.forget(self._prefix, self._views))
        time.sleep(FOLLOW_S)

    def _count(self, keys: Keys) -> int:
        return sum(len(page) for page in generations.pages(self._line, keys))

    def _clear(self) -> int:
        """Remove the generations that are nobody's."""
        stood = drive(self._line, standing.read(self._prefix, self._views))
        removed = 0
        for view in self._views:
            found = generations.existing(self._line, self._prefix, view.name)
            for generation in found - stood[view.name].kept:
                logger.info("removing generation %d of %s", generation, view.name)
                removed += generations.remove(self._line, self._keys(view, generation))
        return removed


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
