"""One pass: views, states, laws; with ``repair``, what can be is mended, and looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

from readmodels.views import View, named
from runtime import kafka
from runtime.redis import new_line
from runtime.settings import Settings
from runtime.topic_admin import require
from verification.drift import Drift
from verification.pace import Pace
from verification.repairing import repair as repair_drifts
from verification.sampling import Sample
from verification.states import StateCheck
from verification.views import ViewCheck

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at. ``views``: names, None: all. ``sample``: so many aggregates of each view and of each
    kind, None: all. ``states``: histories and laws, too.
    """

    views: tuple[str, ...] | None = None
    sample: int | None = None
    states: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass found. ``rows``, ``states``, ``laws``: how many were looked at. ``moving``: changed at each
    look, so that nothing is said of them. ``repaired``: findings that were acted on; ``drifts`` is what was
    found before, ``left`` what is wrong after it.
    """

    rows: int
    states: int
    laws: int
    moving: int
    drifts: tuple[Drift, ...]
    repaired: int
    left: tuple[Drift, ...]
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return not self.left


def verify(
    settings: Settings,
    scope: Scope | None = None,
    *,
    repair: bool = False,
    pace: Pace | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Raises ValueError for an unknown view, TopicsUnfit, KafkaException, NoEnd, RedisError, Restless,
    Stopped.
    """
    started = time.monotonic()
    wanted = scope or Scope()
    views = named(wanted.views)
    require(settings)
    one = _Pass(settings, views, wanted, pace or Pace(), on_step or (lambda _: None))
    drifts = one.run()
    repaired, left = 0, drifts
    if repair and any(drift.repairable for drift in drifts):
        repaired = repair_drifts(settings, drifts)
        touched = {drift.where for drift in drifts if drift.repairable}
        again = Scope(None, None, states=False)
        names = [view for view in views if view.name in touched]
        more = _Pass(settings, names, again, pace or Pace(), on_step or (lambda _: None))
        left = [*(drift for drift in drifts if not drift.repairable), *more.run()]
        one.moving += more.moving
    return Report(
        one.rows,
        one.states,
        one.laws,
        one.moving,
        tuple(drifts),
        repaired,
        tuple(left),
        time.monotonic() - started,
    )


class _Pass:
    def __init__(
        self,
        settings: Settings,
        views: Iterable[View],
        scope: Scope,
        pace: Pace,
        on_step: OnStep,
    ) -> None:
        self.rows = self.states = self.laws = self.moving = 0
        self._settings = settings
        self._views = views
        self._scope = scope
        self._pace = pace
        self._on_step = on_step

    def run(self) -> list[Drift]:
        """Everything in the scope."""
        found: list[Drift] = []
        with (
            closing(new_line(self._settings)) as line,
            closing(kafka.new_reader(self._settings)) as reader,
        ):
            for view in self._views:
                self._on_step(f"view {view.name}")
                sample = Sample(self._scope.sample)
                check = ViewCheck(
                    self._settings, view, line, reader, pace=self._pace, sample=sample
                )
                result = check.run()
                found += result.drifts
                self.rows += result.checked
                self.moving += result.open
            if self._scope.states:
                checks = StateCheck(
                    self._settings, reader, pace=self._pace, sample_size=self._scope.sample
                )
                self._on_step("states against histories")
                found += checks.histories()
                self._on_step("laws")
                found += checks.conservation()
                self.states, self.laws = checks.checked, checks.judged
        return found
