"""What the figures are to come to, as a table, and which of them do. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.summary import Spread


@dataclass(frozen=True, slots=True)
class Goal:
    """The median of a part's figure is at least, or at most, this."""

    part: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def reached_with(self, value: float) -> bool:
        """Whether this is good enough."""
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        return ", ".join(f"{sign} {bound:,g}" for sign, bound in bounds if bound is not None)


def _at_each_rate(part: str, figure: str, p50: float, p99: float, unit: str = "") -> list[Goal]:
    return [
        Goal(part, f"{figure} at {rate}/s, {mark}{unit}", at_most=bound)
        for rate in (200, 2_000)
        for mark, bound in (("p50", p50), ("p99", p99))
    ]


FLAT: Final = 1.2
"""What costs a fifth more counts as flat; cheaper is no fault."""

GROWTH: Final = (
    ("processor", "partitions", 16),
    ("processor", "users", 100),
    ("projector", "users", 100),
    ("processor", "SKUs", 100),
    ("projector", "SKUs", 100),
    ("processor", "orders", 100),
    ("projector", "orders", 100),
    ("processor", "open reservations", 10_000),
)

GOALS: Final[tuple[Goal, ...]] = (
    Goal("processing", "processor / bare loop", at_least=0.5),
    Goal("processing", "processor / Kafka Streams", at_least=1.5),
    Goal("projecting", "projector / stock Faust", at_least=5),
    Goal("projecting", "projector / bare consumer", at_least=0.5),
    Goal("rebuilding", "ratio of one process", at_least=0.8),
    *_at_each_rate("latency", "processor / bare loop", 1.5, 1.5),
    *_at_each_rate("visible", "visible - outcome", 10, 40, " ms"),
    Goal("memory", "resident after 3,000,000 orders, MB", at_most=500),
    Goal("memory", "resident, 3,000,000 to 1,000,000 orders", at_most=1.2),
    Goal("starting", "restart with 1,000,000 orders on disk, s", at_most=5),
    Goal("starting", "restore of 1,000,000 orders, aggregates/s", at_least=150_000),
    *(
        Goal("growth", f"{role}, {what} x {times:,}, cost", at_most=FLAT)
        for role, what, times in GROWTH
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a goal came to; None: the figure was not measured, or only at a smaller size."""

    goal: Goal
    found: float | None

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured."""
        return None if self.found is None else self.goal.reached_with(self.found)


def judge(
    found: Mapping[str, Mapping[str, Spread]], goals: Sequence[Goal] = GOALS
) -> list[Verdict]:
    """The goals of the parts that ran, in the table's order, each by the median."""
    verdicts = []
    for goal in goals:
        if goal.part in found:
            spread = found[goal.part].get(goal.figure)
            verdicts.append(Verdict(goal, None if spread is None else spread.median))
    return verdicts
