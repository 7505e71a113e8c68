"""The parts of the suite, as a table. A new one is a module with ``figures(bench)`` and a row here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks import (
    growth,
    latency,
    memory,
    placing,
    processing,
    projecting,
    reading,
    rebuilding,
    scaling,
    soak,
    starting,
    visible,
    volume,
    webhooks,
    workload,
)
from benchmarks.bench import Bench, Found
from benchmarks.roles import running

WARM_UP_PER_SECOND: Final = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """``rounds``: how often it is repeated, unless something else is asked for. ``large``: it takes minutes,
    and runs only when it is asked for.
    """

    figures: Callable[[Bench], Found]
    rounds: int = 3
    large: bool = False


def _rebuilding(bench: Bench) -> Found:
    with bench.place("rebuilding") as place:
        workload.fill_orders(place.settings, workload.commands(bench.commands))
        processing.decided(place, bench.commands)
        return Found(rebuilding.pair(place.settings))


def _reading(bench: Bench) -> Found:
    with bench.place("reading") as place:
        return Found(reading.figures(place.settings, bench.commands))


PARTS: Final[dict[str, Part]] = {
    "processing": Part(processing.figures),
    "projecting": Part(projecting.figures),
    "rebuilding": Part(_rebuilding),
    "latency": Part(latency.figures),
    "visible": Part(visible.figures),
    "volume": Part(volume.figures, rounds=1),  # it is the same each time
    "growth": Part(growth.figures, rounds=2),  # it takes longest, and what it tells is steady
    "placing": Part(placing.figures),
    "reading": Part(_reading),
    "scaling": Part(scaling.figures),
    "soak": Part(soak.figures, rounds=1, large=True),
    "memory": Part(memory.figures, rounds=1, large=True),
    "starting": Part(starting.figures, large=True),
    "webhooks": Part(webhooks.figures, rounds=1, large=True),
}


def warm_up(bench: Bench, seconds: float) -> None:
    """A broker that was just started is slow until its code is compiled: so many seconds of everything."""
    with (
        bench.place("warm-up") as place,
        running("processors", place.environment),
        running("readmodels", place.environment),
    ):
        latency.measure(place.settings, WARM_UP_PER_SECOND, seconds)
