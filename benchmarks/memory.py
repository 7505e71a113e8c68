"""What a processor needs to decide many orders: its resident memory, over the whole of a run."""

import math
from typing import Final

import psutil

from benchmarks import workload
from benchmarks.bench import Bench, Found
from benchmarks.curves import follow
from benchmarks.processing import committed
from benchmarks.roles import running
from processors.command_processor import WORK

ORDERS: Final = 1_000_000
SMALL: Final = 20_000
MORE: Final = 3
"""So many times as many orders are there in the end."""

MB: Final = 1_000_000
POINTS: Final = 200
"""Of the plot, at most."""


def figures(bench: Bench) -> Found:
    """One process, three million orders (with ``large``), none of them twice."""
    orders = ORDERS if bench.large else SMALL
    goal = MORE * orders
    curve: list[tuple[float, float]] = []
    with bench.place("memory") as place:
        workload.fill_orders(place.settings, workload.creations(goal))
        ask = committed(place.settings, WORK.group_id(place.settings))
        with running("processors", place.environment) as process:
            looked_at = psutil.Process(process.pid)

            def decided() -> int:
                number = ask()
                if number:
                    curve.append((number, looked_at.memory_info().rss / MB))
                return number

            follow(decided, goal, process)
    first, last = next(mb for number, mb in curve if number >= orders), curve[-1][1]
    found = {
        f"resident after {orders:,} orders, MB": first,
        f"resident after {goal:,} orders, MB": last,
        f"resident, {goal:,} to {orders:,} orders": last / first,
    }
    return Found(found, {"resident": curve[:: math.ceil(len(curve) / POINTS)]})
