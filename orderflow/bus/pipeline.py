"""What every bus has registered: the pipeline's own commands, views and queries, each in one table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from orderflow.bus.calls import CommandHandler
from orderflow.bus.ports import Views
from orderflow.bus.queries import (
    QUERIES,
    GetOrder,
    GetSaga,
    GetStock,
    GetUser,
    LowStock,
    Query,
    Sagas,
    TopUsers,
    UserOrderCount,
    UserOrders,
)
from orderflow.bus.registry import CommandRoute, QueryRoute, ReadModel, Registry
from readmodels.views import VIEWS
from sagas import AGGREGATES

READS: Final[Mapping[type[Query[Any]], tuple[str, ...]]] = {
    GetOrder: ("orders",),
    UserOrders: ("orders",),
    UserOrderCount: ("orders",),
    GetUser: ("users", "orders"),
    GetStock: ("stock",),
    LowStock: ("stock",),
    TopUsers: ("orders",),
    GetSaga: ("sagas",),
    Sagas: ("sagas",),
}
"""Query → the views that its answer comes from."""


def register_pipeline(registry: Registry, views: Views, send: CommandHandler[Any]) -> None:
    """Registers every command of every aggregate with ``send``, and every view and query with ``views``."""
    for aggregate in AGGREGATES:
        for command in aggregate.commands:
            registry.add_command(CommandRoute(command, aggregate.name, send))
    for view in VIEWS:
        wait_for = partial(views.wait_for, view.name)
        registry.add_read_model(ReadModel(view.name, view.aggregate, wait_for))
    for query in QUERIES:
        reads = registry.reads(READS[query])
        registry.add_query(QueryRoute(query, partial(_ask, views), reads))


async def _ask(views: Views, query: Query[Any]) -> Any:
    match query:
        case GetOrder(order_id=order_id):
            return await views.order(order_id)
        case UserOrders(user_id=user_id, cursor=cursor, limit=limit):
            return await views.orders_of(user_id, cursor, limit)
        case UserOrderCount(user_id=user_id):
            user = await views.user(user_id)
            return 0 if user is None else user.orders
        case GetUser(user_id=user_id):
            return await views.user(user_id)
        case GetStock(sku=sku):
            return await views.stock(sku)
        case LowStock(limit=limit):
            return await views.low_stock(limit)
        case TopUsers(by=by, currency=currency, limit=limit):
            return await views.top_users(by, currency, limit)
        case GetSaga(saga_id=saga_id):
            return await views.saga(saga_id)
        case Sagas(status=status, limit=limit):
            return await views.sagas(status and status.value, limit)
        case _:
            raise NotImplementedError(f"{type(query).__name__} stands in QUERIES, but not here")
