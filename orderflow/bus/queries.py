"""The queries the views answer, as typed values: the type of the answer stands in the type of the query.

    class GetOrder(Query[OrderAnswer | None])      # so mypy knows what ``await bus.execute_query(…)`` gives

A query of your own is a subclass of `Query` with its fields; see docs/BUS.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from readmodels import (
    OrderAnswer,
    OrderPage,
    SagaAnswer,
    StockAnswer,
    TopUser,
    UserAnswer,
)
from readmodels.queries import PAGE
from readmodels.questions import LIMIT, Ranking
from schemas.ids import Id
from schemas.money import Currency
from schemas.saga import SagaStatus

A_co = TypeVar("A_co", covariant=True)

Limit = Annotated[int, Field(ge=1, le=LIMIT, description="Most rows of the answer.")]


class Query(BaseModel, Generic[A_co]):
    """Base of every query; ``A_co`` is what it is answered with. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class GetOrder(Query[OrderAnswer | None]):
    """An order; None if there is none."""

    order_id: Id


class UserOrders(Query[OrderPage]):
    """A user's orders, newest first. ``cursor``: ``next`` of the page before."""

    user_id: Id
    cursor: str | None = None
    limit: Limit = PAGE


class UserOrderCount(Query[int]):
    """How many orders a user has, cancelled ones too; 0 for a user whom nobody knows."""

    user_id: Id


class GetUser(Query[UserAnswer | None]):
    """A user, their orders by status, and what they spent in each currency; None if nobody knows them."""

    user_id: Id


class GetStock(Query[StockAnswer | None]):
    """The stock of a SKU; None if it is not registered."""

    sku: Id


class LowStock(Query[tuple[StockAnswer, ...]]):
    """SKUs at or below their threshold, those with the fewest pieces first."""

    limit: Limit = PAGE


class TopUsers(Query[tuple[TopUser, ...]]):
    """Who spent most in a currency (minor units), or has most orders."""

    by: Ranking = "spent"
    currency: Currency = "EUR"
    limit: Limit = PAGE


class GetSaga(Query[SagaAnswer | None]):
    """How a saga stands, step by step; None if there is none."""

    saga_id: Id


class Sagas(Query[tuple[SagaAnswer, ...]]):
    """Sagas of a status; None: all that have not ended, those that need somebody first."""

    status: Annotated[SagaStatus | None, Field(strict=False)] = None
    limit: Limit = PAGE


QUERIES: Final[tuple[type[Query[Any]], ...]] = (
    GetOrder,
    UserOrders,
    UserOrderCount,
    GetUser,
    GetStock,
    LowStock,
    TopUsers,
    GetSaga,
    Sagas,
)
"""All of them."""
