"""Rebuild views from offset zero while the live ones serve, prove that they are equal, and switch.

A fresh generation is filled by the same code that feeds the live one, from every partition's beginning to
the end it had when the rebuild began, and on until it has caught up. Old and new are compared. Then one
write makes the new generation live; queries and projectors follow within a second. Interrupted at any
moment before that, the old generation goes on serving, and the next rebuild removes what was left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from readmodels import generations, positions
from readmodels.comparison import Comparison, compare
from readmodels.filling import Filling, Progress
from readmodels.generations import Lock, RebuildFailed
from readmodels.keys import Keys
from readmodels.preflight import watermarks
from readmodels.steps import drive
from readmodels.views import View, named
from runtime.redis import Line, redis_url
from runtime.settings import Settings
from runtime.topic_admin import require, topic_ids, topics_of

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]

LIVE_CATCHES_UP_S: Final = 10.0
"""How long the live views may take to get where the new ones are, before they count as halted."""

FOLLOW_S: Final = 2.5
"""Projectors look for a new generation twice a second; until then they write to the old one."""


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What became of one view."""

    view: str
    old_generation: int
    new_generation: int
    keys: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did. ``unreadable``: records no view can use; they stand in the dead letters."""

    views: tuple[ViewReport, ...]
    records: int
    unreadable: int
    seconds: float
    keys_removed: int

    @property
    def equal(self) -> bool:
        """Whether every view that could be compared was the same, key for key and byte for byte."""
        return all(not one.comparison.differences for one in self.views)


def rebuild(
    settings: Settings,
    views: Iterable[str] | None = None,
    on_progress: OnProgress | None = None,
) -> RebuildReport:
    """Rebuild these views (all, if none are named), switch to them, remove the old ones.

    Raises RebuildFailed (RebuildRunning when another one is at it), TopicsUnfit, KafkaException or
    RedisError; then nothing has been switched.
    """
    wanted = named(views)
    require(settings)
    line = Line(redis_url(settings))
    try:
        with Lock(settings) as lock:
            return _Rebuild(settings, wanted, line, lock, on_progress or (lambda _: None)).run()
    finally:
        line.close()


class _Rebuild:
    def __init__(
        self,
        settings: Settings,
        views: Sequence[View],
        line: Line,
        lock: Lock,
        on_progress: OnProgress,
    ) -> None:
        self._settings = settings
        self._prefix = settings.topic_prefix
        self._views = views
        self._line = line
        self._lock = lock
        self._on_progress = on_progress
        self._started = time.monotonic()

    def run(self) -> RebuildReport:
        """The whole of it."""
        stood = drive(self._line, generations.named_live(self._prefix, self._views))
        old = drive(self._line, positions.live(self._prefix, self._views))
        new = self._claim(old)
        marks = watermarks(self._settings, self._views)
        with Filling(self._settings, new, self._line, self._on_progress) as filling:
            filling.begin({part: low for part, (low, _) in marks.items()})
            self._claim_topics(new)
            filling.read_to({part: high for part, (_, high) in marks.items()})
            comparisons = self._compare(old, new, filling)
            counts = {view.name: self._count(keys) for view, keys in new.items()}
            self._lock.require()
            filling.require_positions()
            generations_now = {view.name: keys.generation for view, keys in new.items()}
            if not drive(self._line, generations.switch(self._prefix, stood, generations_now)):
                raise RebuildFailed("somebody else switched generations meanwhile; rebuild again")
        logger.info("live now: %s", generations_now)
        time.sleep(FOLLOW_S)
        removed = self._remove_others(generations_now)
        return RebuildReport(
            tuple(
                ViewReport(
                    view.name,
                    old[view.name],
                    keys.generation,
                    counts[view.name],
                    comparisons[view.name],
                )
                for view, keys in new.items()
            ),
            filling.records,
            filling.unreadable,
            time.monotonic() - self._started,
            removed,
        )

    def _claim(self, live: Mapping[str, int]) -> dict[View, Keys]:
        """Fresh generations, above all there ever were; what an interrupted rebuild left is removed."""
        new: dict[View, Keys] = {}
        for view in self._views:
            found = generations.existing(self._line, self._prefix, view.name)
            for generation in found - {live[view.name]}:
                logger.info("removing what is left of generation %d of %s", generation, view.name)
                generations.remove(self._line, Keys(self._prefix, view.name, generation))
            new[view] = Keys(self._prefix, view.name, max(found | {live[view.name]}) + 1)
        return new

    def _claim_topics(self, new: Mapping[View, Keys]) -> None:
        topics = {view: topics_of(self._settings).events(view.aggregate) for view in new}
        ids = topic_ids(self._settings, list(topics.values()))
        for view, topic in topics.items():
            drive(self._line, positions.claim(new[view], {topic: ids[topic]}))

    def _compare(
        self, old: Mapping[str, int], new: Mapping[View, Keys], filling: Filling
    ) -> dict[str, Comparison]:
        answers: dict[str, Comparison] = {}
        for view, keys in new.items():
            before = Keys(self._prefix, view.name, old[view.name])
            reason = self._why_not_comparable(view, before, filling)
            answers[view.name] = (
                Comparison(compared=0, skipped=reason)
                if reason
                else compare(self._line, before, keys, filling.catch_up)
            )
            self._lock.require()
        return answers

    def _why_not_comparable(self, view: View, before: Keys, filling: Filling) -> str:
        """Empty when the live view is as far as the new one, or gets there in time."""
        until = time.monotonic() + LIVE_CATCHES_UP_S
        while True:
            (at,) = drive(self._line, positions.read([before]))
            if not at:
                return "nothing to compare: there was no live view"
            behind = sum(
                max(0, target - at.get(part, 0)) for part, target in filling.targets(view).items()
            )
            if not behind:
                return ""
            if time.monotonic() > until:
                return (
                    f"not compared: the live view is {behind} offsets behind; does a projector run?"
                )
            filling.catch_up(0.2)

    def _count(self, keys: Keys) -> int:
        return sum(len(page) for page in generations.pages(self._line, keys))

    def _remove_others(self, live: Mapping[str, int]) -> int:
        removed = 0
        for view in self._views:
            found = generations.existing(self._line, self._prefix, view.name)
            for generation in found - {live[view.name]}:
                removed += generations.remove(self._line, Keys(self._prefix, view.name, generation))
        return removed
