"""How far something has come, over time: read again and again, and the rate between two points of it."""

import subprocess
import time
from collections.abc import Callable
from typing import Final

Curve = list[tuple[float, int]]
"""Seconds on the monotonic clock → how many records are done; both never fall."""

POLL_S: Final = 0.02
STALLED_AFTER_S: Final = 120.0


class Stalled(RuntimeError):
    """What is measured ended, or does not go on."""


def follow(done: Callable[[], int], goal: int, process: subprocess.Popen[bytes]) -> Curve:
    """Asks until ``goal`` is reached; the curve begins with the first that was done. Raises Stalled."""
    curve: Curve = []
    moved_at = time.monotonic()
    while not curve or curve[-1][1] < goal:
        reached, now = done(), time.monotonic()
        if reached > (curve[-1][1] if curve else 0):
            curve.append((now, reached))
            moved_at = now
        elif process.poll() is not None:
            raise Stalled(f"ended with {process.returncode} after {reached} of {goal}")
        elif now - moved_at > STALLED_AFTER_S:
            raise Stalled(f"nothing happened for {STALLED_AFTER_S:g} s after {reached} of {goal}")
        time.sleep(POLL_S)
    return curve


def rate(curve: Curve, low: int = 0, high: int | None = None) -> float:
    """Records a second between two numbers of records, ``low`` or the first that was seen and ``high`` or the
    last. Raises ValueError where the curve has no two points there.
    """
    first, last = max(low, curve[0][1]), curve[-1][1] if high is None else high
    seconds = reached_at(curve, last) - reached_at(curve, first)
    if seconds <= 0:
        raise ValueError(f"there is no time between {first} and {last}")
    return (last - first) / seconds


def reached_at(curve: Curve, number: int) -> float:
    """When so many were done, on the straight line between two readings. Raises ValueError beyond them."""
    if not curve or not curve[0][1] <= number <= curve[-1][1]:
        raise ValueError(f"{number} is not on the curve")
    before = curve[0]
    for point in curve:
        if point[1] >= number:
            step = point[1] - before[1]
            share = (number - before[1]) / step if step else 0.0
            return before[0] + share * (point[0] - before[0])
        before = point
    raise AssertionError("unreachable")
