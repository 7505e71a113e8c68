"""Compares what the views say with what they have to say. Reads through the public queries, like anybody."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from orderflow.shop.planned import ExpectedOrder, ExpectedStock, ExpectedViews
from readmodels import Queries

TOLD_EVERY: Final = 100
TOP: Final = 50

Progress = Callable[[int, int], None]
"""Hears how many of how many were looked at."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it has to be, e.g. ``order 536365``, ``total``."""

    what: str
    field: str
    expected: object
    found: object


@dataclass(slots=True)
class _Sums:
    """What a user's orders come to; ``spent`` leaves out what was cancelled."""

    orders: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)


def differences(
    expected: ExpectedViews,
    queries: Queries,
    on_progress: Progress | None = None,
) -> list[Difference]:
    """Every order, every user's sums, every SKU's stock, and who is on top; empty when all is
    right.

    Raises RedisError. ``on_progress``: how many of how many were looked at.
    """
    sums = _sums(expected)
    total = len(expected.orders) + len(sums) + len(expected.stock)
    found = collected(_looked_at(expected, sums, queries), total, on_progress)
    return [*found, *_top(sums, queries)]


def collected(
    looked_at: Iterable[Iterable[Difference]], total: int, on_progress: Progress | None
) -> list[Difference]:
    """What was found in each of ``total`` things; tells how far it has come, now and then."""
    found: list[Difference] = []
    for number, some in enumerate(looked_at, start=1):
        found += some
        if on_progress is not None and (number % TOLD_EVERY == 0 or number == total):
            on_progress(number, total)
    return found


def _sums(expected: ExpectedViews) -> dict[str, _Sums]:
    """For each user who is registered or has ordered."""
    sums: defaultdict[str, _Sums] = defaultdict(_Sums)
    for user_id in expected.users:
        sums[user_id] = _Sums()
    for order in expected.orders.values():
        of_user = sums[order.user_id]
        of_user.orders += 1
        of_user.by_status[order.status] += 1
        if order.status != "cancelled":
            of_user.spent[order.currency] += order.total
    return dict(sums)


def _looked_at(
    expected: ExpectedViews, sums: Mapping[str, _Sums], queries: Queries
) -> Iterator[list[Difference]]:
    for order_id, order in expected.orders.items():
        yield _order(order_id, order, queries)
    for user_id, of_user in sums.items():
        yield _user(user_id, of_user, user_id in expected.users, queries)
    for sku, stock in expected.stock.items():
        yield _stock(sku, stock, queries)


def _order(order_id: str, expected: ExpectedOrder, queries: Queries) -> list[Difference]:
    found = queries.order(order_id)
    what = f"order {order_id}"
    if found is None:
        return [Difference(what, "exists", True, False)]
    wanted: dict[str, object] = {
        "user_id": expected.user_id,
        "currency": expected.currency,
        "total": expected.total,
        "status": expected.status,
        "lines": expected.lines,
    }
    seen: dict[str, object] = {
        "user_id": found.user_id,
        "currency": found.currency,
        "total": found.total,
        "status": found.status,
        "lines": len(found.lines),
    }
    if expected.created_at_ms is not None:
        wanted["created_at_ms"], seen["created_at_ms"] = expected.created_at_ms, found.created_at_ms
    return _fields(what, wanted, seen)


def _user(user_id: str, expected: _Sums, registered: bool, queries: Queries) -> list[Difference]:
    found = queries.user(user_id)
    what = f"user {user_id}"
    if found is None:
        return [Difference(what, "exists", True, False)]
    wanted = {
        "registered": registered,
        "orders": expected.orders,
        "by_status": {name: count for name, count in expected.by_status.items() if count},
        "spent": {currency: amount for currency, amount in expected.spent.items() if amount},
    }
    seen = {
        "registered": found.profile is not None,
        "orders": found.orders,
        "by_status": dict(found.by_status),
        "spent": dict(found.spent),
    }
    return _fields(what, wanted, seen)


def _stock(sku: str, expected: ExpectedStock, queries: Queries) -> list[Difference]:
    found = queries.stock(sku)
    what = f"SKU {sku}"
    if found is None:
        return [Difference(what, "exists", True, False)]
    wanted = {
        "on_hand": expected.on_hand,
        "reserved": expected.reserved,
        "available": expected.available,
    }
    seen = {
        "on_hand": found.on_hand,
        "reserved": found.reserved,
        "available": found.available,
    }
    return _fields(what, wanted, seen)


def _top(sums: Mapping[str, _Sums], queries: Queries) -> list[Difference]:
    """The rankings; of equal users it does not matter which one is in."""
    found: list[Difference] = []
    currencies = {currency for of_user in sums.values() for currency in of_user.spent}
    for currency in sorted(currencies):
        wanted = sorted(
            (s.spent[currency] for s in sums.values() if s.spent[currency]), reverse=True
        )
        seen = [row.value for row in queries.top_users("spent", currency, TOP)]
        if seen != wanted[:TOP]:
            found.append(Difference("top users", f"spent {currency}", wanted[:TOP], seen))
    counts = sorted((s.orders for s in sums.values() if s.orders), reverse=True)[:TOP]
    seen = [row.value for row in queries.top_users("orders", limit=TOP)]
    if seen != counts:
        found.append(Difference("top users", "orders", counts, seen))
    return found


def _fields(
    what: str, expected: Mapping[str, object], found: Mapping[str, object]
) -> list[Difference]:
    return [
        Difference(what, name, value, found[name])
        for name, value in expected.items()
        if found[name] != value
    ]
