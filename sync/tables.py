"""The tables of a target, as data. A column has the name and the meaning of the field in the view.

A new column or table is a new `SCHEMA_VERSION`. Times are epoch milliseconds UTC and amounts minor
units, as everywhere; `docs/SYNC_SQL.md` shows how to read them.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from schemas.order import OrderStatus

SCHEMA_VERSION: Final = 1

METADATA: Final = MetaData()

_INT64_MAX: Final = 2**63 - 1
_Json = JSON().with_variant(JSONB(), "postgresql")


class Sum(TypeDecorator[int]):
    """A sum over any number of orders. SQLite has no integer above 2^63 - 1: there it becomes a REAL."""

    impl = Numeric(40, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """NUMERIC where that is exact."""
        exact: TypeEngine[Any] = Numeric(40, 0) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(exact)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> object:
        """What the driver takes."""
        too_big = value is not None and value > _INT64_MAX
        return float(value) if value is not None and too_big and dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> int | None:
        """Decimal or REAL as the int that it is."""
        return None if value is None else int(value)  # type: ignore[call-overload]


def _whole(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


PASS: Final = "sync_pass"
"""Column: number of the last pass that met the row; the next one deletes what it did not meet."""


def _rows(name: str, *columns: Column[Any]) -> Table:
    return Table(name, METADATA, *columns, Column(PASS, BigInteger, nullable=False))


def _part_of(parent: str) -> Column[str]:
    whole = ForeignKey(parent, ondelete="CASCADE")
    return Column(parent.partition(".")[2], Text, whole, primary_key=True)


ORDERS: Final = _rows(
    "orders",
    Column("order_id", Text, primary_key=True),
    _whole("version"),
    _text("status"),
    Column("user_id", Text, nullable=False, index=True),
    _text("currency"),
    _whole("total"),
    _whole("spent"),
    _whole("created_at_ms"),
    _whole("updated_at_ms"),
)
ORDER_LINES: Final = Table(
    "order_lines",
    METADATA,
    _part_of("orders.order_id"),
    Column("line", Integer, primary_key=True, autoincrement=False),
    _text("sku"),
    _whole("quantity"),
    _whole("unit_price"),
)
USER_ORDERS: Final = _rows(
    "user_orders",
    Column("user_id", Text, primary_key=True),
    _whole("orders"),
    *(_whole(status.value) for status in OrderStatus),
)
USER_SPENT: Final = Table(
    "user_spent",
    METADATA,
    _part_of("user_orders.user_id"),
    Column("currency", Text, primary_key=True),
    Column("spent", Sum, nullable=False),
)
STOCK: Final = _rows(
    "stock",
    Column("sku", Text, primary_key=True),
    _whole("version"),
    _text("description"),
    _whole("on_hand"),
    _whole("reserved"),
    _whole("available"),
    _whole("threshold"),
    _whole("updated_at_ms"),
)
USERS: Final = _rows(
    "users",
    Column("user_id", Text, primary_key=True),
    _whole("version"),
    _text("status"),
    _text("name"),
    _text("email", null=True),
    _whole("registered_at_ms"),
    _whole("updated_at_ms"),
)
SAGAS: Final = _rows(
    "sagas",
    Column("saga_id", Text, primary_key=True),
    _whole("version"),
    _text("saga"),
    _text("status"),
    _text("correlation_id"),
    _text("code", null=True),
    _text("message", null=True),
    _whole("started_at_ms"),
    _whole("updated_at_ms"),
    _whole("wakes_at_ms", null=True),
    _text("undone", null=True),
    _text("resolved_by", null=True),
    Column("steps", _Json, nullable=False),
)

SYNC_TARGET: Final = Table(
    "sync_target",
    METADATA,
    Column("schema_version", Integer, primary_key=True, autoincrement=False),
    _text("prefix"),
)
"""One row: what these tables are, and of which pipeline (ORDERFLOW_TOPIC_PREFIX)."""

SYNC_VIEWS: Final = Table(
    "sync_views",
    METADATA,
    Column("view", Text, primary_key=True),
    _whole("revision"),
    _whole("pass_number"),
    Column("filling", Boolean, nullable=False),
    Column("identity", _Json, nullable=True),
    Column("covered", _Json, nullable=False),
    Column("topics", _Json, nullable=False),
    _whole("written_at_ms"),
)
"""How far each view is: `sync.cursor.Stand` without its cursors. ``covered``: it has all up to there."""

SYNC_CURSORS: Final = Table(
    "sync_cursors",
    METADATA,
    Column("view", Text, ForeignKey("sync_views.view", ondelete="CASCADE"), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    _whole("stamp"),
)
