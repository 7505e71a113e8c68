"""Whether a command or an event costs more where there is more: partitions, users, SKUs, orders, and so on.

Each is measured against itself, ten and a hundred times smaller; 1 is flat, less is dearer. What is measured
stands on the topics behind what makes them large, so that one process does both, and only the last part
counts.
"""

from collections.abc import Callable
from typing import Final

from benchmarks import workload
from benchmarks.bench import Bench, Found
from benchmarks.curves import Curve, rate
from benchmarks.processing import decided
from benchmarks.projecting import projected
from readmodels.views import ORDERS, STOCK
from runtime.topic_admin import topics_of

PARTITIONS: Final = (1, 4, 16)
USERS: Final = (100, 1_000, 10_000)
SKUS: Final = (100, 1_000, 10_000)
FEW: Final = 10
"""Open reservations of a SKU that is not hot."""

FEWEST: Final = 10_000
"""Commands that are measured, at least: fewer are done between two looks."""

Rates = dict[int, dict[str, float]]
"""Size → the rates of what is measured there."""


def figures(bench: Bench) -> Found:
    """All of them, one after the other."""
    count = max(FEWEST, bench.commands // 4)
    found: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for what, of in _GROWS.items():
        rates = dict(sorted(of(bench, count).items()))
        smallest, largest = min(rates), max(rates)
        for size, at_size in rates.items():
            found |= {f"{name}, {what}: {size:,}": value for name, value in at_size.items()}
        for name in rates[smallest]:
            role = name.partition(",")[0]
            curve = [
                (size / smallest, at[name] / rates[smallest][name]) for size, at in rates.items()
            ]
            curves[f"{role}, {what}"] = curve
            found[f"{role}, {what} x {largest // smallest:,}"] = curve[-1][1]
    return Found(found, curves)


def _partitions(bench: Bench, count: int) -> Rates:
    rates: Rates = {}
    for partitions in bench.to_and_fro(PARTITIONS):
        with bench.place(f"partitions-{partitions}", partitions) as place:
            workload.fill_orders(place.settings, count)
            rates[partitions] = _commands(decided(place, count), count)
    return rates


def _users(bench: Bench, count: int) -> Rates:
    rates: Rates = {}
    for users in bench.to_and_fro(USERS):
        with bench.place(f"users-{users}") as place:
            workload.fill_orders(place.settings, count, users)
            rates[users] = _commands(decided(place, count), count) | _events(projected(place))
    return rates


def _skus(bench: Bench, count: int) -> Rates:
    rates: Rates = {}
    for skus in bench.to_and_fro(SKUS):
        with bench.place(f"skus-{skus}") as place:
            workload.fill_stock(place.settings, workload.items(skus))
            workload.fill_stock(place.settings, workload.reservations(count, skus))
            curve = decided(place, skus + count, "inventory")
            rates[skus] = _commands(curve, count) | _events(projected(place, STOCK))
    return rates


def _orders(bench: Bench, count: int) -> Rates:
    """One run over all sizes, of which the commands behind each size count."""
    sizes = [bench.commands // 20 * times for times in (1, 10, 100)]
    total = sizes[-1] + count
    with bench.place("orders") as place:
        topic = topics_of(place.settings).commands("order")
        workload.fill(place.settings, topic, workload.creations(total))
        commands, events = decided(place, total), projected(place, ORDERS)
    return {
        size: {
            "processor, commands/s": rate(commands, size, size + count),
            # Its positions count the markers of transactions, too.
            "projector, events/s": rate(events, size, size + count),
        }
        for size in sizes
    }


def _reservations(bench: Bench, count: int) -> Rates:
    """A hot SKU: reservations are made and released beside few open ones, and beside many."""
    rates: Rates = {}
    for opened in bench.to_and_fro((FEW, bench.commands // 2)):
        with bench.place(f"hot-{opened}") as place:
            workload.fill_stock(place.settings, workload.items(1))
            workload.fill_stock(place.settings, workload.reservations(opened, 1))
            workload.fill_stock(place.settings, workload.to_and_fro(count, workload.sku(0)))
            rates[opened] = _commands(decided(place, 1 + opened + count, "inventory"), count)
    return rates


_GROWS: Final[dict[str, Callable[[Bench, int], Rates]]] = {
    "partitions": _partitions,
    "users": _users,
    "SKUs": _skus,
    "orders": _orders,
    "open reservations": _reservations,
}


def _commands(curve: Curve, count: int) -> dict[str, float]:
    """The rate of the last so many commands."""
    return {"processor, commands/s": rate(curve, curve[-1][1] - count)}


def _events(curve: Curve) -> dict[str, float]:
    """The rate of all events but the first quarter."""
    return {"projector, events/s": rate(curve, curve[-1][1] // 4)}
