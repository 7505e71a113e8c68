"""How long a processor with many orders takes to start: with what it has on disk, and without."""

import shutil
import time
from typing import Final

from benchmarks import processing, workload
from benchmarks.bench import Bench, Found, Place
from benchmarks.curves import follow
from benchmarks.roles import running
from processors.command_processor import WORK
from schemas.partitioner import partition_for

ORDERS: Final = 1_000_000
SMALL: Final = 20_000


def figures(bench: Bench) -> Found:
    """With a million orders (``large``), after an orderly stop."""
    orders = ORDERS if bench.large else SMALL
    with bench.place("starting") as place:
        workload.fill_orders(place.settings, workload.creations(orders))
        processing.decided(place, orders)
        restart = _start(place, orders, 1)
        shutil.rmtree(place.settings.home)
        restore = _start(place, orders, 2)
    return Found(
        {
            f"restart with {orders:,} orders on disk, s": restart,
            f"restore of {orders:,} orders, s": restore,
            f"restore of {orders:,} orders, aggregates/s": orders / restore,
        }
    )


def _start(place: Place, orders: int, turn: int) -> float:
    """Seconds from the start of the process until it has committed a new command on each partition; the
    ``turn``-th time.
    """
    partitions = place.settings.partitions
    fresh: dict[int, workload.Record] = {}
    number = 1_000_000_000 * turn
    while len(fresh) < partitions:
        record = workload.creation(number, f"p-{number}")
        fresh.setdefault(partition_for(record[0], partitions), record)
        number += 1
    workload.fill_orders(place.settings, fresh.values())
    ask = processing.committed(place.settings, WORK.group_id(place.settings))
    began = time.monotonic()
    with running("processors", place.environment) as process:
        curve = follow(ask, orders + turn * partitions, process)
    return curve[-1].at - began
