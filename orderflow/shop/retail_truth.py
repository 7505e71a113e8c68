"""What the views must say after an Online Retail file, from one pass over the raw file.

Independent on purpose: no command, no plan and no model of the domain is looked at. The rules are
written out here a second time; where they and the pipeline disagree, the reconciliation shows it.
"""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Final, TextIO
from zoneinfo import ZoneInfo

from orderflow.shop.planned import ExpectedOrder, ExpectedStock, ExpectedViews

MOST_PIECES: Final = 1_000_000
MOST_PENCE: Final = 1_000_000_000
MOST_LINES: Final = 1_000
MOST_MONEY: Final = 2**53 - 1
CURRENCY: Final = "GBP"
LONDON: Final = ZoneInfo("Europe/London")

_id = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9]([A-Za-z0-9 ._:@+-]*[A-Za-z0-9._:@+-])?").fullmatch

Wanted = tuple[str, int, int]
"""SKU, pieces, pence of one piece."""


@dataclass(slots=True)
class _Invoice:
    user: str
    at: str
    lines: int = 0
    pence: int = 0
    good: bool = True
    pieces: Counter[str] = field(default_factory=Counter)
    unclear: set[str] = field(default_factory=set)  # SKUs with a quantity that is no number


def truth_of(path: Path) -> ExpectedViews:
    """Orders, users and stock as they must stand when the file is imported."""
    sold: dict[str, _Invoice] = {}
    stock: Counter[str] = Counter()
    seen_users: set[str] = set()
    seen_skus: set[str] = set()
    for row in raw_rows(path):
        number, sku, user = row["InvoiceNo"], row["StockCode"], row["CustomerID"] or "guest"
        seen_users.add(user)
        seen_skus.add(sku)
        pieces = whole(row["Quantity"])
        if number[:1] == "C":
            if pieces is not None and 1 <= -pieces <= MOST_PIECES:
                stock[sku] -= pieces
            continue
        invoice = sold.setdefault(number, _Invoice(user, row["InvoiceDate"]))
        if pieces is not None and 1 <= pieces <= MOST_PIECES:
            stock[sku] += pieces  # the opening stock: what all sales will take
        _add_line(invoice, sku, pieces, pence_of(row["UnitPrice"]))
    views = ExpectedViews()
    views.users = {user for user in seen_users if usable_id(user)}
    for number, invoice in sold.items():
        _settle(views, stock, number, invoice)
    views.stock = {sku: ExpectedStock(stock[sku]) for sku in seen_skus if usable_id(sku)}
    return views


def _add_line(invoice: _Invoice, sku: str, pieces: int | None, pence: int | None) -> None:
    invoice.lines += 1
    if pieces is None:
        invoice.unclear.add(sku)
    else:
        invoice.pieces[sku] += pieces
    line = good_line(sku, pieces, pence)
    if line is None:
        invoice.good = False
    else:
        invoice.pence += line[1] * line[2]


def good_line(sku: str, pieces: int | None, pence: int | None) -> Wanted | None:
    """The line, if it can be ordered."""
    if pieces is None or pence is None:
        return None
    good = 1 <= pieces <= MOST_PIECES and 0 <= pence <= MOST_PENCE and usable_id(sku)
    return (sku, pieces, pence) if good else None


def _settle(views: ExpectedViews, stock: Counter[str], number: str, invoice: _Invoice) -> None:
    """A good invoice is an order and takes its pieces; any other changes nothing at all."""
    fits = invoice.lines <= MOST_LINES and invoice.pence <= MOST_MONEY
    if not (invoice.good and fits and usable_id(number) and usable_id(invoice.user)):
        return
    views.orders[number] = ExpectedOrder(
        user_id=invoice.user,
        currency=CURRENCY,
        total=invoice.pence,
        lines=invoice.lines,
        created_at_ms=_epoch_ms(invoice.at),
    )
    for sku, pieces in invoice.pieces.items():
        if pieces <= MOST_PIECES:  # a reservation of more is refused, the order stands
            stock[sku] -= pieces


def usable_id(text: str) -> bool:
    """Whether an aggregate can have this id."""
    return _id(text) is not None


def whole(text: str) -> int | None:
    """The number of pieces, if it is one."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def pence_of(text: str) -> int | None:
    """Pounds as pence, half a penny to the even one; None for what is no amount."""
    if not re.fullmatch(r"-?[0-9]{1,15}([.][0-9]{1,15})?", text):
        return None
    return int((Decimal(text) * 100).to_integral_value(ROUND_HALF_EVEN))


def _epoch_ms(text: str) -> int:
    local = datetime.fromisoformat(text)
    moment = local if local.tzinfo else local.replace(tzinfo=LONDON)
    return round(moment.timestamp() * 1000)


def raw_rows(path: Path) -> Iterator[dict[str, str]]:
    """Each line of the file, by the names of its columns."""
    with _open_text(path) as file:
        yield from csv.DictReader(file)


def _open_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
