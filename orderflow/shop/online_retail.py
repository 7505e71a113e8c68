"""The plan of an Online Retail file: which commands it becomes, in the order of the file.

    customer      RegisterUser when first seen; a blank one is the user ``guest``
    stock code    RegisterItem when first seen; its opening stock is what the file's sales will take
    in all, so no reservation is refused for want of stock; more than one command may carry is
    received on top invoice       CreateOrder with all its lines; for each SKU one reservation,
    under the number of the invoice, of all its pieces, and its commitment C invoice
    ReceiveStock for each line, of as many pieces as came back

What is invalid is sent all the same, and refused by the pipeline: an order with one bad line is
refused as a whole. Then the good SKUs of that invoice are *withheld*: no stock is reserved for an
order that is none. Reservations that are themselves invalid are sent, and refused. Nothing is
skipped without being counted.

Ids are taken as they stand (``85123A`` and ``85123a`` are two items); one that no aggregate can
have goes to the dead letters. A command's id follows from the file, so importing it again changes
nothing. An invoice may be spread over the file; it has the time of its first line and is planned
when its last one is read.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from commands.aggregate import Command
from commands.inventory import CommitReservation, ReceiveStock, RegisterItem, ReserveStock
from commands.order import CreateOrder
from commands.user import RegisterUser
from orderflow.shop.planned import PlannedCommand
from orderflow.shop.retail_file import Row, pence_of, quantity_of, read_rows, time_of
from schemas.ids import is_id
from schemas.money import MAX_AMOUNT, MAX_QUANTITY
from schemas.rejections import Code

GUEST: Final = "guest"
CURRENCY: Final = "GBP"
LOW_STOCK: Final = 10
NO_DESCRIPTION: Final = "(no description)"
LONGEST_DESCRIPTION: Final = 200
LONGEST_IN_COMMAND_ID: Final = 48


@dataclass(slots=True)
class Survey:
    """What has to be known of the whole file before its first command is sent."""

    rows: int = 0
    lines: Counter[str] = field(default_factory=Counter)  # of each invoice
    to_sell: Counter[str] = field(default_factory=Counter)  # pieces of each SKU
    descriptions: dict[str, str] = field(default_factory=dict)


def survey(path: Path, on_bytes: Callable[[int], None] | None = None) -> Survey:
    """One pass over the file. Raises NotOnlineRetail before anything is sent."""
    seen = Survey()
    for row in read_rows(path, on_bytes):
        time_of(row)  # a file with a broken date is refused here
        seen.rows += 1
        seen.lines[row.invoice] += 1
        if row.description.strip():
            seen.descriptions.setdefault(row.stock_code, row.description.strip())
        pieces = quantity_of(row.quantity)
        if not is_return(row.invoice) and isinstance(pieces, int) and 0 < pieces <= MAX_QUANTITY:
            seen.to_sell[row.stock_code] += pieces
    return seen


def is_return(invoice: str) -> bool:
    """Whether the invoice takes goods back."""
    return invoice.startswith("C")


def user_of(customer: str) -> str:
    """The user behind a CustomerID."""
    return customer or GUEST


def name_of(user: str) -> str:
    """The name under which a user is registered: the file has none."""
    return "Guest" if user == GUEST else f"Customer {user}"


class RetailPlan:
    """Turns the file into commands. ``withheld`` counts the reservations of refused orders not sent."""

    def __init__(self, path: Path) -> None:
        """Surveys the file. Raises NotOnlineRetail."""
        self.path = path
        self.survey = survey(path)
        self.withheld = 0
        self.invoices = 0

    def commands(self, on_row: Callable[[int], None] | None = None) -> Iterator[PlannedCommand]:
        """All commands, lazily; in memory are only the invoices of which lines are still to come."""
        users: set[str] = set()
        items: set[str] = set()
        open_: dict[str, list[Row]] = {}
        for row in read_rows(self.path):
            user = user_of(row.customer)
            if user not in users:
                users.add(user)
                yield _register_user(user, row)
            if row.stock_code not in items:
                items.add(row.stock_code)
                yield from self._register_item(row)
            lines = open_.setdefault(row.invoice, [])
            lines.append(row)
            if len(lines) == self.survey.lines[row.invoice]:
                yield from self._invoice(open_.pop(row.invoice))
            if on_row is not None:
                on_row(row.number)

    def _register_item(self, row: Row) -> Iterator[PlannedCommand]:
        sku, left = row.stock_code, self.survey.to_sell[row.stock_code]
        opening = min(left, MAX_QUANTITY)
        description = self.survey.descriptions.get(sku, NO_DESCRIPTION)[:LONGEST_DESCRIPTION]
        data = {
            "description": description,
            "low_stock_threshold": LOW_STOCK,
            "opening_stock": opening,
        }
        at = time_of(row)
        yield _planned(RegisterItem, "inventory", sku, data, at, "item", sku)
        for more in range(opening, left, MAX_QUANTITY):
            data = {"quantity": min(left - more, MAX_QUANTITY), "reference": "opening stock"}
            yield _planned(ReceiveStock, "inventory", sku, data, at, "item", sku, str(more))

    def _invoice(self, rows: list[Row]) -> Iterator[PlannedCommand]:
        self.invoices += 1
        if is_return(rows[0].invoice):
            return self._returned(rows)
        return self._sold(rows)

    def _returned(self, rows: list[Row]) -> Iterator[PlannedCommand]:
        at = time_of(rows[0])
        for number, row in enumerate(rows, start=1):
            pieces = quantity_of(row.quantity)
            data = {
                "quantity": -pieces if isinstance(pieces, int) else pieces,
                "reference": row.invoice,
            }
            yield _planned(
                ReceiveStock, "inventory", row.stock_code, data, at, row.invoice, str(number)
            )

    def _sold(self, rows: list[Row]) -> Iterator[PlannedCommand]:
        invoice, at = rows[0].invoice, time_of(rows[0])
        lines = [
            {
                "sku": row.stock_code,
                "quantity": quantity_of(row.quantity),
                "unit_price": pence_of(row.unit_price),
            }
            for row in rows
        ]
        order = {"user_id": user_of(rows[0].customer), "currency": CURRENCY, "lines": lines}
        create = _planned(CreateOrder, "order", invoice, order, at, invoice, "create")
        if isinstance(create.data, CreateOrder) and _total(create.data) > MAX_AMOUNT:
            create = _refused(create, Code.ORDER_TOTAL_TOO_LARGE)
        yield create
        for sku, pieces in _pieces_by_sku(rows).items():
            data = {"reservation_id": invoice, "quantity": pieces}
            reserve = _planned(ReserveStock, "inventory", sku, data, at, invoice, sku, "reserve")
            if create.expected is not None and reserve.expected is None:
                self.withheld += 1
                continue
            yield reserve
            data = {"reservation_id": invoice}
            commit = _planned(CommitReservation, "inventory", sku, data, at, invoice, sku, "commit")
            if reserve.expected is not None and commit.expected is None:
                commit = _refused(commit, Code.RESERVATION_NOT_FOUND)
            yield commit


def _register_user(user: str, row: Row) -> PlannedCommand:
    data = {"name": name_of(user)}
    return _planned(RegisterUser, "user", user, data, time_of(row), "user", user)


def _pieces_by_sku(rows: list[Row]) -> dict[str, int | str]:
    """Pieces of each SKU over its lines; text as soon as one line has no number."""
    pieces: dict[str, int | str] = {}
    for row in rows:
        more, so_far = quantity_of(row.quantity), pieces.get(row.stock_code, 0)
        if isinstance(so_far, int):
            pieces[row.stock_code] = so_far + more if isinstance(more, int) else more
    return pieces


def _total(order: CreateOrder) -> int:
    return sum(line.quantity * line.unit_price for line in order.lines)


def _planned(
    model: type[Command], aggregate: str, key: str, data: dict[str, Any], at: int, *name: str
) -> PlannedCommand:
    """The command, with what the pipeline's edge will say to its key and its fields."""
    expected = None if is_id(key) else Code.INVALID_KEY
    payload: Command | bytes
    raw = json.dumps(data, ensure_ascii=False).encode()
    try:
        payload = model.model_validate_json(raw)
    except ValidationError:
        payload, expected = raw, expected or Code.INVALID_DATA
    return PlannedCommand(
        aggregate, key, model.__name__, payload, command_id(*name), expected, occurred_at_ms=at
    )


def _refused(command: PlannedCommand, code: Code) -> PlannedCommand:
    return replace(command, expected=command.expected or code)


def command_id(*name: str) -> str:
    """Follows from the file alone, e.g. ``retail:536365:create``; a part no id can hold, by its hash."""
    return ":".join(("retail", *map(_id_part, name)))


def _id_part(text: str) -> str:
    if len(text) <= LONGEST_IN_COMMAND_ID and ":" not in text and is_id(text):
        return text
    return "sha256-" + sha256(text.encode()).hexdigest()[:16]
