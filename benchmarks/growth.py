"""Whether a command or an event costs more where there is more: partitions, users, SKUs, orders, and so on.

The cost of one is compared with that where there is less; 1 is flat, more is dearer. It is what the process
spends of a core (and Redis, for the projector), since rates depend on who else uses the machine; they stand
beside it. What is measured lies behind what makes the topics large, so that one process does both, and only
the last part counts.
"""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import workload
from benchmarks.bench import Bench, Found
from benchmarks.curves import Curve, cost, rate
from benchmarks.processing import decided
from benchmarks.projecting import projected
from readmodels.views import ORDERS, STOCK

PARTITIONS: Final = (1, 4, 16)
TIMES: Final = (1, 10, 100)
USERS_OF: Final = 200
"""One user, and one SKU, for so many commands of the suite, where there are fewest."""

ORDERS_OF: Final = 20
FEW: Final = 10
"""Open reservations of a SKU that is not hot."""

FEWEST: Final = 10_000
"""Commands that are measured, at least: fewer are done between two looks."""

UNITS: Final = {
    "processor": ("commands/s", "CPU µs a command"),
    "projector": ("events/s", "CPU µs an event"),
}
"""Role → of its rate and of its cost."""

Measured = dict[int, dict[str, tuple[float, float]]]
"""Size → role → rate and cost."""


def figures(bench: Bench) -> Found:
    """All of them, one after the other."""
    count = max(FEWEST, bench.commands // 4)
    found: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for what, measure in _GROWS.items():
        by_size = dict(sorted(measure(bench, count).items()))
        smallest, largest = min(by_size), max(by_size)
        for role in by_size[smallest]:
            for size, roles in by_size.items():
                for unit, value in zip(UNITS[role], roles[role], strict=True):
                    found[f"{role}, {size:,} {what}, {unit}"] = value
            least = by_size[smallest][role][1]
            curve = [(size / smallest, roles[role][1] / least) for size, roles in by_size.items()]
            curves[f"{role}, {what}"] = curve
            found[f"{role}, {what} x {largest // smallest:,}, cost"] = curve[-1][1]
    return Found(found, curves)


def _partitions(bench: Bench, count: int) -> Measured:
    measured: Measured = {}
    for partitions in bench.to_and_fro(PARTITIONS):
        with bench.place(f"partitions-{partitions}", partitions) as place:
            workload.fill_orders(place.settings, workload.commands(count))
            measured[partitions] = _commands(decided(place, count), count)
    return measured


def _users(bench: Bench, count: int) -> Measured:
    """All users have an order before what is measured: a new user costs a view more than one it knows."""
    measured: Measured = {}
    for users in _sizes(bench, USERS_OF):
        with bench.place(f"users-{users}") as place:
            workload.fill_orders(place.settings, workload.creations(users, users=users))
            workload.fill_orders(place.settings, workload.commands(count, users, first=users))
            curve = decided(place, users + count)
            measured[users] = _commands(curve, count) | _events(projected(place), count)
    return measured


def _skus(bench: Bench, count: int) -> Measured:
    measured: Measured = {}
    for skus in _sizes(bench, USERS_OF):
        with bench.place(f"skus-{skus}") as place:
            workload.fill_stock(place.settings, workload.items(skus))
            workload.fill_stock(place.settings, workload.reservations(count, skus))
            curve = decided(place, skus + count, "inventory")
            # A reservation is a record of its own, beside the SKU's.
            events = _events(projected(place, STOCK), 2 * count)
            measured[skus] = _commands(curve, count) | events
    return measured


def _orders(bench: Bench, count: int) -> Measured:
    """One run over all sizes, of which the commands behind each size count."""
    sizes = _sizes(bench, ORDERS_OF)
    total = max(sizes) + count
    with bench.place("orders") as place:
        workload.fill_orders(place.settings, workload.creations(total))
        commands, events = decided(place, total), projected(place, ORDERS)
    return {
        size: {
            "processor": _rate_and_cost(commands, size, size + count),
            "projector": _rate_and_cost(events, size, size + count),
        }
        for size in sizes
    }


def _reservations(bench: Bench, count: int) -> Measured:
    """A hot SKU: reservations are made and released beside few open ones, and beside many."""
    measured: Measured = {}
    for opened in bench.to_and_fro((FEW, bench.commands // 2)):
        with bench.place(f"hot-{opened}") as place:
            workload.fill_stock(place.settings, workload.items(1))
            workload.fill_stock(place.settings, workload.reservations(opened, 1))
            workload.fill_stock(place.settings, workload.to_and_fro(count, workload.sku(0)))
            measured[opened] = _commands(decided(place, 1 + opened + count, "inventory"), count)
    return measured


_GROWS: Final[dict[str, Callable[[Bench, int], Measured]]] = {
    "partitions": _partitions,
    "users": _users,
    "SKUs": _skus,
    "orders": _orders,
    "open reservations": _reservations,
}


def _sizes(bench: Bench, divisor: int) -> Sequence[int]:
    return bench.to_and_fro([bench.commands // divisor * times for times in TIMES])


def _commands(curve: Curve, count: int) -> dict[str, tuple[float, float]]:
    """Of the last so many commands."""
    return {"processor": _rate_and_cost(curve, curve[-1].done - count)}


def _events(curve: Curve, count: int) -> dict[str, tuple[float, float]]:
    """Of the last so many records; its positions count the markers of transactions, too."""
    return {"projector": _rate_and_cost(curve, curve[-1].done - count)}


def _rate_and_cost(curve: Curve, low: int, high: int | None = None) -> tuple[float, float]:
    return rate(curve, low, high), cost(curve, low, high)
