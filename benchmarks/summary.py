"""Numbers made of numbers: percentiles, and median and spread over rounds. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MARKS: Final = (*range(0, 90, 5), *range(90, 100), 99.9)
"""The percentiles that a distribution is drawn with."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all rounds."""

    median: float
    lowest: float
    highest: float


def percentile(values: Sequence[float], mark: float) -> float:
    """The value that ``mark`` per cent (0 … 100) lie below, on the straight line between its neighbours.

    Raises ValueError without values.
    """
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    at = mark / 100 * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {f"p{mark} ms": percentile(seconds, mark) * 1000 for mark in (50, 99)}


def distribution(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """Percentile → milliseconds, for a plot."""
    return [(mark, percentile(seconds, mark) * 1000) for mark in MARKS]


def spreads(rounds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Each figure's median and range, over the rounds that have it; in the order of their first mention."""
    values: dict[str, list[float]] = {}
    for figures in rounds:
        for name, value in figures.items():
            values.setdefault(name, []).append(value)
    return {
        name: Spread(statistics.median(found), min(found), max(found))
        for name, found in values.items()
    }


def middle_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Of curves over the same places, the median at each place that all of them have."""
    return [
        (points[0][0], statistics.median(y for _, y in points))
        for points in zip(*curves, strict=False)
    ]
