"""From a row of a view, as Redis has it, to rows of tables. Pure.

A column takes the field of its name, so a new field is a column in `tables` and nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Column, Table

from readmodels.orders import user_of
from readmodels.views import ORDERS, SAGAS, STOCK, USERS
from schemas.decoding import DecodeError, decode_json
from schemas.order import OrderStatus
from sync import tables
from sync.tables import PASS

Fields = Mapping[str, str]
Values = dict[str, Any]

_INT64: Final = range(-(2**63), 2**63)
_NOT_A_ROW: Final = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    RecursionError,
    DecodeError,
)
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
_SUM: Final = range(-(10**40) + 1, 10**40)
"""As `tables.Sum` has it."""


class NoRow(ValueError):
    """What stands in the view cannot be a row of the table. It is left out, and told."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows that belong to a row and are replaced with it."""

    table: Table
    of: Callable[[Fields], list[Values]]


@dataclass(frozen=True)
class RowType:
    """One sort of row of a view. ``kind``: of its keys in Redis (readmodels/keys.py).

    ``key``: the columns that name a row, from the id that stands after the kind. Only the first is the
    primary key: an order that another user took over is not deleted with the former owner's row.
    """

    kind: str
    table: Table
    key: Callable[[str], Values]
    fields: Callable[[Fields], Fields] = dict
    parts: Parts | None = None

    def values(self, identity: str, fields: Fields) -> tuple[Values, list[Values]]:
        """The row, and its parts with the same key. Raises NoRow."""
        try:
            found = self.fields(fields)
            key = self.key(identity)
            row = {c.name: _value(c, found) for c in self.table.columns if c.name != PASS} | key
            parts = self.parts.of(fields) if self.parts else []
        except _NOT_A_ROW as error:
            raise NoRow(f"{self.table.name} {identity}: {error!r}") from error
        primary = next(iter(key.items()))
        return row, [{primary[0]: primary[1], **part} for part in parts]


def _value(column: Column[Any], fields: Fields) -> Any:
    text = fields.get(column.name)
    if text is None:
        if column.nullable or column.primary_key:
            return None
        raise KeyError(column.name)
    if isinstance(column.type, BigInteger):
        return _whole(text)
    return _clean(decode_json(text) if isinstance(column.type, JSON) else text)


def _whole(text: str | int) -> int:
    return _number(text, _INT64)


def _number(text: str | int, allowed: range) -> int:
    number = int(text)
    if number not in allowed:
        raise ValueError(f"a number is outside of {allowed.start} to {allowed.stop - 1}")
    return number


def _clean(value: Any) -> Any:
    """PostgreSQL has no text with a NUL, in JSON neither; no database has half of a surrogate pair."""
    if isinstance(value, str):
        return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value


def _lines(order: Fields) -> list[Values]:
    lines: list[Values] = decode_json(order["lines"])
    return [
        {
            "line": number,
            "sku": _clean(str(line["sku"])),
            "quantity": _whole(line["quantity"]),
            "unit_price": _whole(line["unit_price"]),
        }
        for number, line in enumerate(lines, 1)
    ]


def _sums(user: Fields) -> Fields:
    """A sum that would be 0 has no field in the view."""
    counts = {status.value: user.get(f"status:{status.value}", "0") for status in OrderStatus}
    return {"orders": user.get("orders", "0"), **counts}


def _spent(user: Fields) -> list[Values]:
    sums = {
        _clean(name.removeprefix("spent:")): _number(total, _SUM)
        for name, total in user.items()
        if name.startswith("spent:")
    }
    return [{"currency": currency, "spent": total} for currency, total in sums.items()]


def _order_key(identity: str) -> Values:
    user_id, _, order_id = _clean(identity).rpartition("/")
    return {"order_id": order_id, "user_id": user_id}


ORDER: Final = RowType("order", tables.ORDERS, _order_key, parts=Parts(tables.ORDER_LINES, _lines))
SUMS: Final = RowType(
    "user",
    tables.USER_ORDERS,
    lambda id_: {"user_id": _clean(id_)},
    _sums,
    Parts(tables.USER_SPENT, _spent),
)
SKU: Final = RowType("sku", tables.STOCK, lambda id_: {"sku": _clean(id_)})
USER: Final = RowType("user", tables.USERS, lambda id_: {"user_id": _clean(id_)})
SAGA: Final = RowType("saga", tables.SAGAS, lambda id_: {"saga_id": _clean(id_)})

ROW_TYPES: Final[Mapping[str, tuple[RowType, ...]]] = {
    ORDERS.name: (ORDER, SUMS),
    STOCK.name: (SKU,),
    USERS.name: (USER,),
    SAGAS.name: (SAGA,),
}
"""View → its sorts of rows; the first one has stamps."""

RowId = tuple[RowType, str]


def rows_of(view: str, changed: str) -> list[RowId]:
    """The rows to read when this one has a new stamp: a user's sums change with their orders."""
    first, *others = ROW_TYPES[view]
    return [(first, changed), *((other, user_of(changed)) for other in others)]
