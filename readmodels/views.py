"""The views there are, as a table. A new one is a row here and a file with its `project`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from readmodels import orders, sagas, stock, users
from readmodels.keys import Keys
from readmodels.records import Change
from readmodels.steps import Steps
from schemas.inventory import StockLevel
from schemas.order import OrderState
from schemas.saga import SagaState
from schemas.topics import Topics
from schemas.upcasting import Reader
from schemas.user import UserState


@dataclass(frozen=True, slots=True)
class View:
    """A view reads the events topic of one aggregate; several views may read the same.

    ``states`` reads the aggregate's states of any version. ``project``: aggregate id, version and state
    (JSON) → the row. ``apply`` brings rows into Redis.
    """

    name: str
    aggregate: str
    states: Reader[Any]
    project: Callable[[str, int, bytes], Any]
    apply: Callable[[Keys, Iterable[Change[Any]]], Steps[None]]


ORDERS: Final = View("orders", "order", Reader(OrderState), orders.project, orders.apply)
STOCK: Final = View("stock", "inventory", Reader(StockLevel), stock.project, stock.COLLECTION.apply)
USERS: Final = View("users", "user", Reader(UserState), users.project, users.COLLECTION.apply)
SAGAS: Final = View("sagas", "saga", Reader(SagaState), sagas.project, sagas.COLLECTION.apply)

VIEWS: Final[tuple[View, ...]] = (ORDERS, STOCK, USERS, SAGAS)


def named(names: Iterable[str] | None) -> tuple[View, ...]:
    """The views of these names, all for None. Raises ValueError naming the one that does not exist."""
    if names is None:
        return VIEWS
    known = {view.name: view for view in VIEWS}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no view {name!r}; there are: {', '.join(known)}")
    return tuple(view for view in VIEWS if view.name in wanted)


def by_topic(topics: Topics, views: Sequence[View]) -> dict[str, list[View]]:
    """Events topic → the views that read it."""
    reading: dict[str, list[View]] = {}
    for view in views:
        reading.setdefault(topics.events(view.aggregate), []).append(view)
    return reading
