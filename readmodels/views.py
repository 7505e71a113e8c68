"""The views there are, as a table. A new one is a row here and a file with its `project`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from readmodels import order_mending, orders, sagas, stock, users
from readmodels.documents import Collection, Document, Pieces
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
    (JSON) → the row, or None where there shall be none. ``apply`` brings rows into Redis.

    A *unit* is the smallest piece of a view that changes by itself: an aggregate's document, a user's sums.
    ``unit_of``: kind of key, its identity and the member of a sorted set → the unit it belongs to.
    ``touched``: generation and changes, before they are applied → the units they may change.
    ``pieces``: all that stands of these aggregates; their rows say where to look if nothing else does.
    ``expected``: what has to stand for a row, None for none.
    ``seen`` and ``mend``: see `mending`; what stands of an aggregate, and put the row of its newest record
    there if it still stands so or is not newer.
    """

    name: str
    aggregate: str
    states: Reader[Any]
    project: Callable[[str, int, bytes], Any]
    apply: Callable[[Keys, Iterable[Change[Any]]], Steps[None]]
    unit_of: Callable[[str, str, str], str]
    touched: Callable[[Keys, Sequence[Change[Any]]], Steps[set[str]]]
    pieces: Callable[[Keys, Mapping[str, Any]], Steps[dict[str, Pieces]]]
    expected: Callable[[Any], Pieces]
    seen: Callable[[Keys, str], Steps[Any]]
    mend: Callable[[Keys, str, Change[Any] | None, Any, Sequence[str]], Steps[bool]]


def documents(
    name: str,
    aggregate: str,
    states: Reader[Any],
    project: Callable[[str, int, bytes], Document | None],
    kept: Collection,
) -> View:
    """A view of one document an aggregate, and perhaps a ranking."""
    return View(
        name,
        aggregate,
        states,
        project,
        kept.apply,
        kept.unit_of,
        kept.touched,
        kept.pieces,
        kept.expected,
        kept.seen,
        kept.mend,
    )


ORDERS: Final = View(
    "orders",
    "order",
    Reader(OrderState),
    orders.project,
    orders.apply,
    orders.unit_of,
    orders.touched,
    order_mending.pieces,
    order_mending.expected,
    order_mending.seen,
    order_mending.mend,
)
STOCK: Final = documents("stock", "inventory", Reader(StockLevel), stock.project, stock.COLLECTION)
USERS: Final = documents("users", "user", Reader(UserState), users.project, users.COLLECTION)
SAGAS: Final = documents("sagas", "saga", Reader(SagaState), sagas.project, sagas.COLLECTION)

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
