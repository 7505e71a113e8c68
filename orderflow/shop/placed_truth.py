"""What the views must say after the orders of an Online Retail file were placed: from the file, and from
what `place_order` answered, alone.

Independent on purpose: no plan, no command, no saga and no event is looked at; what can be ordered
is said by retail_truth, which writes the rules out a second time. Stock is not simulated: which orders found
none is the sagas' to say, and what follows from it for every SKU and user is added up here. Pure
but for reading the file, and for asking the views.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orderflow.placing import Placed, Placement, StillRunning
from orderflow.shop.check import Difference, Progress, collected
from orderflow.shop.planned import ExpectedOrder, ExpectedStock, ExpectedViews
from orderflow.shop.retail_truth import (
    CURRENCY,
    MOST_LINES,
    Wanted,
    good_line,
    pence_of,
    raw_rows,
    usable_id,
    whole,
)
from readmodels import Queries


@dataclass(slots=True)
class _Invoice:
    user: str
    lines: list[Wanted] = field(default_factory=list)


@dataclass(slots=True)
class PlacedTruth:
    """``lines``: of each order that was placed; ``askable``: every invoice that can be an order."""

    views: ExpectedViews = field(default_factory=ExpectedViews)
    lines: dict[str, list[Wanted]] = field(default_factory=dict)
    askable: set[str] = field(default_factory=set)

    @property
    def amount(self) -> int:
        """What all placed orders cost, in pence."""
        return sum(order.total for order in self.views.orders.values())


def placed_truth(
    path: Path, placed: Collection[str], opening_stock: int, limit: int | None = None
) -> PlacedTruth:
    """As the views must stand when of the file's first ``limit`` invoices these were placed."""
    truth = PlacedTruth()
    reserved: Counter[str] = Counter()
    for number, invoice in _invoices(path, limit).items():
        if not _can_be_asked(number, invoice):
            continue
        truth.askable.add(number)
        truth.views.users.add(invoice.user)
        reserved.update({sku: 0 for sku, _, _ in invoice.lines})
        if number in placed:
            _add_order(truth, number, invoice)
            for sku, pieces, _ in invoice.lines:
                reserved[sku] += pieces
    truth.views.stock = {sku: ExpectedStock(opening_stock, held) for sku, held in reserved.items()}
    return truth


def _invoices(path: Path, limit: int | None) -> dict[str, _Invoice]:
    """Of each invoice the good lines; its customer is the first line's, good or not."""
    found: dict[str, _Invoice] = {}
    for row in raw_rows(path):
        number = row["InvoiceNo"]
        if number not in found:
            if limit is not None and len(found) == limit:
                continue
            found[number] = _Invoice(row["CustomerID"] or "guest")
        pieces, pence = whole(row["Quantity"]), pence_of(row["UnitPrice"])
        line = good_line(row["StockCode"], pieces, pence)
        if line is not None:
            found[number].lines.append(line)
    return found


def _can_be_asked(number: str, invoice: _Invoice) -> bool:
    goods_back = number[:1] == "C"
    return (
        not goods_back
        and 1 <= len(invoice.lines) <= MOST_LINES
        and usable_id(number)
        and usable_id(invoice.user)
    )


def _add_order(truth: PlacedTruth, number: str, invoice: _Invoice) -> None:
    truth.lines[number] = invoice.lines
    truth.views.orders[number] = ExpectedOrder(
        user_id=invoice.user,
        currency=CURRENCY,
        total=sum(pieces * pence for _, pieces, pence in invoice.lines),
        lines=len(invoice.lines),
        status="confirmed",
    )


def order_differences(
    truth: PlacedTruth,
    placements: Mapping[str, Placement],
    queries: Queries,
    on_progress: Progress | None = None,
) -> list[Difference]:
    """What `check.differences` does not look at: the lines of each placed order, that no other order is
    there, the money of all users together, and that nothing was promised twice.

    Payments are in no view, so they are not compared here; who wants to know reads their log. Raises
    RedisError.
    """
    each = (_order(key, placement, truth, queries) for key, placement in placements.items())
    found = [
        *_not_asked(truth, placements),
        *_oversold(truth),
        *collected(each, len(placements), on_progress),
    ]
    spent = _spent(truth, queries)
    if spent != truth.amount:
        found.append(Difference("all users", f"spent {CURRENCY}", truth.amount, spent))
    return found


def _not_asked(truth: PlacedTruth, placements: Mapping[str, Placement]) -> Iterator[Difference]:
    """Invoices left out that should not have been, or the other way round."""
    for order_id in sorted(truth.askable ^ placements.keys()):
        askable = order_id in truth.askable
        yield Difference(f"order {order_id}", "asked for", askable, not askable)


def _oversold(truth: PlacedTruth) -> Iterator[Difference]:
    for sku, stock in truth.views.stock.items():
        if stock.available < 0:
            yield Difference(f"SKU {sku}", "available, at least", 0, stock.available)


def _order(
    order_id: str, placement: Placement, truth: PlacedTruth, queries: Queries
) -> Iterator[Difference]:
    what = f"order {order_id}"
    if isinstance(placement, StillRunning):
        yield Difference(what, "ended", True, False)
        return
    found = queries.order(order_id)
    if not isinstance(placement, Placed):
        if found is not None:
            yield Difference(what, "exists", False, True)
    elif found is not None:  # one that is missing is told by `check.differences`
        wanted = truth.lines.get(order_id)
        seen = [(line.sku, line.quantity, line.unit_price) for line in found.lines]
        if seen != wanted:
            yield Difference(what, "lines", wanted, seen)


def _spent(truth: PlacedTruth, queries: Queries) -> int:
    users = (queries.user(user_id) for user_id in truth.views.users)
    return sum(user.spent.get(CURRENCY, 0) for user in users if user is not None)
