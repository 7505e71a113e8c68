"""What placing an Online Retail file comes to, in figures."""

from dataclasses import dataclass

from orderflow.shop.check import Difference
from orderflow.shop.placed_truth import PlacedTruth
from orderflow.shop.retail_orders import RetailOrders
from orderflow.shop.retail_placing import Endings, Way


@dataclass(frozen=True, slots=True)
class PlacingReport:
    """``left_out``: lines by reason; ``not_placed``: orders by code; ``amount``: of all placed orders, in
    pence; ``seconds``: from the first order's begin to the last one's end.
    """

    rows: int
    invoices: int
    left_out: dict[str, int]
    orders: int
    lines: int
    users: int
    skus: int
    way: Way
    placed: int
    not_placed: dict[str, int]
    still_running: int
    amount: int
    differences: list[Difference]
    seconds: float
    orders_per_second: float


def placing_report(
    orders: RetailOrders,
    way: Way,
    endings: Endings,
    truth: PlacedTruth,
    differences: list[Difference],
) -> PlacingReport:
    """The figures of what was read, of how it ended, and of what it was reconciled with."""
    return PlacingReport(
        rows=orders.rows,
        invoices=orders.invoices,
        left_out=dict(orders.left_out),
        orders=len(orders.orders),
        lines=orders.lines,
        users=len(truth.views.users),
        skus=len(truth.views.stock),
        way=way,
        placed=len(endings.placed),
        not_placed=dict(endings.not_placed),
        still_running=endings.still_running,
        amount=truth.amount,
        differences=differences,
        seconds=round(endings.seconds, 1),
        orders_per_second=round(endings.rate, 1),
    )
