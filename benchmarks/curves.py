"""How far a process has come, over time; and the rate and the cost between two points of that."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import psutil

from benchmarks.roles import Process


class Reading(NamedTuple):
    """``at``: seconds on the monotonic clock. ``cpu``: seconds of a core that were spent until then."""

    at: float
    done: int
    cpu: float


Curve = list[Reading]
"""None of the three ever falls."""

POLL_S: Final = 0.01
STALLED_AFTER_S: Final = 120.0


class Stalled(RuntimeError):
    """What is measured ended, or does not go on."""


def follow(
    done: Callable[[], int],
    goal: int,
    process: Process,
    cpu_beside: Callable[[], float] = lambda: 0.0,
) -> Curve:
    """Asks until ``goal`` is reached; the curve begins with the first that was done. Raises Stalled.

    ``cpu_beside``: what others spend for it, in addition to the process itself.
    """
    curve: Curve = []
    looked_at = psutil.Process(process.pid)
    moved_at = time.monotonic()
    while not curve or curve[-1].done < goal:
        reached, now = done(), time.monotonic()
        if reached > (curve[-1].done if curve else 0):
            spent = looked_at.cpu_times()
            curve.append(Reading(now, reached, spent.user + spent.system + cpu_beside()))
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
    first, last = _between(curve, low, high)
    return (last.done - first.done) / (last.at - first.at)


def cost(curve: Curve, low: int = 0, high: int | None = None) -> float:
    """Microseconds of a core for one record, likewise. It hardly depends on who else uses the machine."""
    first, last = _between(curve, low, high)
    return (last.cpu - first.cpu) / (last.done - first.done) * 1e6


def reading_at(curve: Curve, number: int) -> Reading:
    """When so many were done, on the straight line between two readings. Raises ValueError beyond them."""
    if not curve or not curve[0].done <= number <= curve[-1].done:
        raise ValueError(f"{number} is not on the curve")
    before = curve[0]
    for after in curve:
        if after.done >= number:
            step = after.done - before.done
            share = (number - before.done) / step if step else 0.0
            at = before.at + share * (after.at - before.at)
            return Reading(at, number, before.cpu + share * (after.cpu - before.cpu))
        before = after
    raise AssertionError("unreachable")


def _between(curve: Curve, low: int, high: int | None) -> tuple[Reading, Reading]:
    first = reading_at(curve, max(low, curve[0].done))
    last = reading_at(curve, curve[-1].done if high is None else high)
    if last.at <= first.at:
        raise ValueError(f"there is no time between {first.done} and {last.done}")
    return first, last
