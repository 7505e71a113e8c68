"""The tables of a target against the reference of the views: every row and every column."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Engine, Table, create_engine, select
from sqlalchemy.exc import OperationalError, ProgrammingError

from readmodels.reference import Reference
from schemas.order import OrderStatus
from sync import tables
from sync.rows import ROW_TYPES
from sync.target import address

Row = dict[str, Any]
Found = dict[str, list[Row]]


def found_tables(url: str) -> Found:
    """Table → its rows by primary key, without the columns of the synchronisation's own."""
    engine = create_engine(address(url))
    try:
        return {table.name: _rows(engine, table) for table in _tables()}
    finally:
        engine.dispose()


def sql_differences(url: str, reference: Reference) -> list[str]:
    """Each row that is not as the reference has it; none, if all is well."""
    found, wanted = found_tables(url), wanted_tables(reference)
    assert set(found) == set(wanted)
    return [
        f"{name}: {row} {'is not wanted' if row in found[name] else 'is missing'}"
        for name in wanted
        for row in _either(found[name], wanted[name])
    ]


def same(url: str, reference: Reference) -> bool:
    """For `eventually`: also False while there are no tables, or somebody holds them."""
    try:
        return not sql_differences(url, reference)
    except (OperationalError, ProgrammingError):
        return False


def wanted_tables(reference: Reference) -> Found:
    """What the tables have to say, from the reference alone."""
    orders = list(reference.orders().values())
    users = reference.users()
    with_orders = [user for user in users.values() if user.orders]
    profiles = [(id_, user.profile) for id_, user in users.items() if user.profile]
    wanted: Found = {
        "orders": [
            {
                **{k: v for k, v in _plain(order).items() if k != "lines"},
                "spent": 0 if order.status == OrderStatus.CANCELLED else order.total,
            }
            for order in orders
        ],
        "order_lines": [
            {"order_id": order.order_id, "line": number, **_plain(line)}
            for order in orders
            for number, line in enumerate(order.lines, 1)
        ],
        "user_orders": [
            {
                "user_id": user.user_id,
                "orders": user.orders,
                **{status.value: user.by_status.get(status.value, 0) for status in OrderStatus},
            }
            for user in with_orders
        ],
        "user_spent": [
            {"user_id": user.user_id, "currency": currency, "spent": spent}
            for user in with_orders
            for currency, spent in user.spent.items()
        ],
        "stock": [_plain(level) for level in reference.stock().values()],
        "users": [{"user_id": id_, **_plain(profile)} for id_, profile in profiles],
        "sagas": [
            {**_plain(saga), "undone": ",".join(saga.undone) or None}
            for saga in reference.sagas().values()
        ],
    }
    return {name: sorted(rows, key=_key_of(name)) for name, rows in wanted.items()}


def _plain(answer: msgspec.Struct) -> Row:
    row: Row = msgspec.json.decode(msgspec.json.encode(answer))
    return row


def _tables() -> list[Table]:
    found: list[Table] = []
    for row_types in ROW_TYPES.values():
        for row_type in row_types:
            found += [row_type.table, *([row_type.parts.table] if row_type.parts else [])]
    return found


def _rows(engine: Engine, table: Table) -> list[Row]:
    with engine.connect() as connection:
        rows = connection.execute(select(table)).mappings().all()
    plain = [{str(k): v for k, v in row.items() if k != tables.PASS} for row in rows]
    return sorted(plain, key=_key_of(table.name))


def _key_of(table: str) -> Any:
    names = [column.name for column in tables.METADATA.tables[table].primary_key.columns]
    return lambda row: [row[name] for name in names]


def _either(found: list[Row], wanted: list[Row]) -> list[Row]:
    return [row for row in wanted if row not in found] + [row for row in found if row not in wanted]
