"""The tables that several commands show: orders, users, stock, and how a check came out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from orderflow.cli.output import Table, answers, moment, money, sums, table
from orderflow.shop.check import Difference
from readmodels import OrderAnswer, Queries, RebuildReport, StockAnswer, UserAnswer, ViewReport

CURRENCY: Final = "GBP"
SHOWN: Final = 5
DIFFERENCES_SHOWN: Final = 20


def orders_table(title: str, found: Iterable[OrderAnswer]) -> Table:
    """Orders, one a row."""
    columns = ("order", "user", "status", "lines", "total", "created (UTC)", "version")
    rows = (
        (
            one.order_id,
            one.user_id,
            one.status,
            len(one.lines),
            money(one.total, one.currency),
            moment(one.created_at_ms),
            one.version,
        )
        for one in found
    )
    return table(title, columns, rows)


def users_table(title: str, found: Iterable[UserAnswer]) -> Table:
    """Users, one a row. Who ordered without being registered has no name."""
    columns = ("user", "name", "standing", "orders", "by status", "spent")
    rows = (
        (
            one.user_id,
            one.profile.name if one.profile else None,
            one.profile.status if one.profile else "not registered",
            one.orders,
            ", ".join(f"{status} {count:,}" for status, count in one.by_status.items()),
            sums(one.spent),
        )
        for one in found
    )
    return table(title, columns, rows)


def stock_table(title: str, found: Iterable[StockAnswer]) -> Table:
    """SKUs, one a row."""
    columns = ("sku", "description", "on hand", "reserved", "available", "low at", "version")
    rows = (
        (
            one.sku,
            one.description,
            one.on_hand,
            one.reserved,
            one.available,
            one.threshold,
            one.version,
        )
        for one in found
    )
    return table(title, columns, rows)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A look at every view, taken while the pipeline runs, to be shown when it has stopped."""

    top_users: tuple[UserAnswer, ...]
    newest_orders: tuple[OrderAnswer, ...]
    low_stock: tuple[StockAnswer, ...]


def take_snapshot(queries: Queries) -> Snapshot:
    """Raises RedisError."""
    ranked = queries.top_users("spent", CURRENCY, SHOWN)
    users = tuple(found for one in ranked if (found := queries.user(one.user_id)) is not None)
    orders = queries.orders_of(users[0].user_id, limit=SHOWN).orders if users else ()
    return Snapshot(users, orders, queries.low_stock(SHOWN))


def show_snapshot(snapshot: Snapshot) -> None:
    """The views, as tables."""
    out = answers()
    out.show(users_table("Top users", snapshot.top_users))
    out.show(orders_table("Newest orders of the first", snapshot.newest_orders))
    out.show(stock_table("Low stock", snapshot.low_stock))


def show_rejections(rejected: Mapping[str, int]) -> None:
    """How many commands were refused, by code."""
    if rejected:
        rows = sorted(rejected.items(), key=lambda row: (-row[1], row[0]))
        answers().show(table("Rejected", ("code", "commands"), rows))


def show_differences(title: str, found: Sequence[Difference]) -> None:
    """What is not as expected; nothing if all is."""
    if not found:
        return
    rows = ((one.what, one.field, one.expected, one.found) for one in found[:DIFFERENCES_SHOWN])
    out = answers()
    out.show(table(title, ("what", "field", "expected", "found"), rows))
    if len(found) > DIFFERENCES_SHOWN:
        out.say(f"… and {len(found) - DIFFERENCES_SHOWN:,} more (-o json has them all)")


@dataclass(frozen=True, slots=True)
class RebuildAnswer:
    """A rebuild's report as it is answered. ``equal``: nothing that was compared differs;
    ``proven``: and all of it was compared.
    """

    equal: bool
    proven: bool
    records: int
    unreadable: int
    seconds: float
    keys_removed: int
    switched: bool
    processes: int
    views: tuple[ViewReport, ...]

    @classmethod
    def of(cls, report: RebuildReport) -> Self:
        """Of the report of ``readmodels.rebuild``."""
        whole = not any(one.comparison.skipped or one.comparison.moving for one in report.views)
        return cls(
            report.equal,
            report.equal and whole,
            report.records,
            report.unreadable,
            round(report.seconds, 2),
            report.keys_removed,
            report.switched,
            report.processes,
            report.views,
        )


def show_rebuild(report: RebuildAnswer) -> None:
    """What a rebuild did, view by view."""
    rows = (
        (
            one.view,
            f"{one.old_generation} → {one.new_generation}",
            one.keys,
            one.comparison.compared,
            one.comparison.differences,
            _result(one),
        )
        for one in report.views
    )
    columns = ("view", "generation", "keys", "compared", "different", "result")
    out = answers()
    out.show(table("Rebuilt", columns, rows))
    for one in report.views:
        if one.comparison.vector:
            at = ", ".join(f"{part} {offset}" for part, offset in one.comparison.vector.items())
            out.say(f"{one.view} compared at {at}")


def _result(view: ViewReport) -> str:
    if view.comparison.skipped:
        return view.comparison.skipped
    if view.comparison.differences:
        return "different"
    moving = view.comparison.moving
    return f"equal, but {moving} that moved all the time" if moving else "equal"
