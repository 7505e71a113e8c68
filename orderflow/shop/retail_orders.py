"""The orders of an Online Retail file, each to be placed by one call, and what of the file is none.

    invoice       an order under its number: its first line's customer, all lines that can be ordered
    C invoice     left out: what comes back is no order
    line          left out where the domain's ``Line`` refuses its SKU, pieces (a write-off) or price

Nothing is left out without being counted: lines ordered and lines left out are the lines read.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from commands.order import MAX_LINES, Line
from orderflow.shop.online_retail import (
    LONGEST_DESCRIPTION,
    NO_DESCRIPTION,
    is_return,
    user_of,
)
from orderflow.shop.retail_file import Row, pence_of, quantity_of, read_rows
from schemas.ids import is_id

OF_A_RETURN: Final = "return"
OF_NO_ORDER: Final = "invoice"
"""Its number or its customer cannot be an id, or it has too many lines."""


@dataclass(frozen=True, slots=True)
class RetailOrder:
    """An invoice as the order that is placed."""

    order_id: str
    user_id: str
    lines: tuple[Line, ...]


@dataclass(slots=True)
class RetailOrders:
    """What was read. ``descriptions``: of each SKU that is ordered. ``left_out``: lines by reason, which
    is ``return``, ``invoice`` or the field that no order can have.
    """

    rows: int = 0
    invoices: int = 0
    orders: list[RetailOrder] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> int:
        """Lines of all orders."""
        return sum(len(order.lines) for order in self.orders)

    @property
    def users(self) -> list[str]:
        """Everybody who orders, once."""
        return list(dict.fromkeys(order.user_id for order in self.orders))


def read_orders(path: Path, limit: int | None = None) -> RetailOrders:
    """The orders of the file's first ``limit`` invoices, or of all. Raises NotOnlineRetail, OSError."""
    invoices: dict[str, list[Row]] = {}
    for row in read_rows(path):
        if row.invoice in invoices:
            invoices[row.invoice].append(row)
        elif limit is None or len(invoices) < limit:
            invoices[row.invoice] = [row]
    found = RetailOrders(invoices=len(invoices))
    for rows in invoices.values():
        _add(found, rows)
    return found


def _add(found: RetailOrders, rows: list[Row]) -> None:
    order_id, user_id = rows[0].invoice, user_of(rows[0].customer)
    found.rows += len(rows)
    if is_return(order_id):
        found.left_out[OF_A_RETURN] += len(rows)
        return
    described: list[tuple[Line, str]] = []
    for row in rows:
        match _line(row):
            case Line() as line:
                text = row.description.strip()[:LONGEST_DESCRIPTION]
                described.append((line, text or NO_DESCRIPTION))
            case reason:
                found.left_out[reason] += 1
    if not (is_id(order_id) and is_id(user_id) and len(described) <= MAX_LINES):
        found.left_out[OF_NO_ORDER] += len(described)
    elif described:
        found.orders.append(RetailOrder(order_id, user_id, tuple(line for line, _ in described)))
        for line, text in described:
            if found.descriptions.get(line.sku, NO_DESCRIPTION) == NO_DESCRIPTION:
                found.descriptions[line.sku] = text


def _line(row: Row) -> Line | str:
    """The line, or the name of the field that no order can have."""
    try:
        return Line.model_validate(
            {
                "sku": row.stock_code,
                "quantity": quantity_of(row.quantity),
                "unit_price": pence_of(row.unit_price),
            }
        )
    except ValidationError as refusal:
        return str(refusal.errors(include_url=False)[0]["loc"][0])
