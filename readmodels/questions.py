"""How each question is asked of Redis and its answer read: conversations without I/O (`steps.Steps`).

`queries` holds them, with and without asyncio. Every one begins by reading which generation is live.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Final, Literal

from readmodels import positions
from readmodels.answers import (
    OrderAnswer,
    OrderPage,
    Profile,
    SagaAnswer,
    StockAnswer,
    TopUser,
    UserAnswer,
    ViewStatus,
)
from readmodels.keys import BUCKETS, Keys, bucket_of
from readmodels.orders import document_key, place_key, user_of
from readmodels.sagas import answer, asked_for, scores_of
from readmodels.steps import Pause, Steps, pairs
from readmodels.unreadable import parsed
from readmodels.views import ORDERS, SAGAS, STOCK, USERS, VIEWS, View, named
from runtime.redis import Command
from schemas.decoding import decoder
from schemas.order import OrderLine
from schemas.saga import ENDED

LIMIT: Final = 1_000
"""Most rows of one answer; more come with a cursor."""

_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.1
_lines: Final = decoder(tuple[OrderLine, ...])

_KIND_OF: Final = {USERS.name: "user", STOCK.name: "sku", SAGAS.name: "saga"}
"""Of a view with one document an aggregate, the kind of key that holds it."""

Ranking = Literal["spent", "orders"]


class ViewTimeout(TimeoutError):
    """A view did not get to a version in time."""

    def __init__(
        self, view: str, aggregate_id: str, version: int, seen: int, timeout: float
    ) -> None:
        super().__init__(
            f"the view {view} has {aggregate_id} at version {seen}, not {version}, after {timeout:g} s. It"
            " will get there as soon as a projector has caught up: see that one is running (`orderflow"
            " projector`) and how far it is behind (`orderflow doctor`)."
        )
        self.view = view
        self.aggregate_id = aggregate_id
        self.version = version
        self.seen = seen


def order(prefix: str, order_id: str) -> Steps[OrderAnswer | None]:
    """An order; None if there is none."""
    keys = yield from _keys(prefix, ORDERS)
    user_id = yield from _owner(keys, order_id)
    if user_id is None:
        return None
    key = document_key(keys, user_id, order_id)
    replies = yield [("HGETALL", key)]
    return _order(key, order_id, replies[0])


def orders_of(prefix: str, user_id: str, cursor: str | None, limit: int) -> Steps[OrderPage]:
    """A page of a user's orders, newest first."""
    _check_limit(limit)
    keys = yield from _keys(prefix, ORDERS)
    bucket = bucket_of(user_id)
    start = "+" if cursor is None else f"({cursor}"
    listing: Command = (
        "ZREVRANGEBYLEX", keys.key("list", bucket, user_id), start, "-", "LIMIT", 0, limit + 1,
    )  # fmt: skip
    replies = yield [listing]
    members: list[str] = replies[0]
    ids = [member.partition(":")[2] for member in members[:limit]]
    places = [document_key(keys, user_id, order_id) for order_id in ids]
    documents = yield [("HGETALL", key) for key in places]
    found = map(_order, places, ids, documents)
    orders = tuple(one for one in found if one is not None)
    return OrderPage(orders, members[limit - 1] if len(members) > limit else None)


def user(prefix: str, user_id: str) -> Steps[UserAnswer | None]:
    """A user and the sums over their orders; None if neither view knows them."""
    live = yield from positions.live(prefix, (USERS, ORDERS))
    bucket = bucket_of(user_id)
    of_users = Keys(prefix, "users", live["users"]).key("user", bucket, user_id)
    of_orders = Keys(prefix, "orders", live["orders"]).key("user", bucket, user_id)
    replies = yield [("HGETALL", of_users), ("HGETALL", of_orders)]
    profile, sums = pairs(replies[0]), pairs(replies[1])
    if not profile and not sums:
        return None
    return UserAnswer(
        user_id=user_id,
        profile=parsed(of_users, lambda: _profile(profile)) if profile else None,
        orders=parsed(of_orders, lambda: int(sums.get("orders", 0))),
        by_status=parsed(of_orders, lambda: _named(sums, "status:")),
        spent=parsed(of_orders, lambda: _named(sums, "spent:")),
    )


def stock(prefix: str, sku: str) -> Steps[StockAnswer | None]:
    """The stock of a SKU; None if it is not registered."""
    keys = yield from _keys(prefix, STOCK)
    key = keys.key("sku", bucket_of(sku), sku)
    replies = yield [("HGETALL", key)]
    return _stock(key, sku, replies[0])


def low_stock(prefix: str, limit: int) -> Steps[tuple[StockAnswer, ...]]:
    """SKUs at or below their threshold, those with the fewest pieces first."""
    _check_limit(limit)
    keys = yield from _keys(prefix, STOCK)
    replies = yield [
        ("ZRANGE", keys.key("low", bucket), 0, limit - 1, "WITHSCORES") for bucket in range(BUCKETS)
    ]
    ranked = sorted((float(score), sku) for sku, score in _scored(replies))
    skus = [sku for _, sku in ranked[:limit]]
    places = [keys.key("sku", bucket_of(sku), sku) for sku in skus]
    documents = yield [("HGETALL", key) for key in places]
    found = map(_stock, places, skus, documents)
    return tuple(one for one in found if one is not None)


def top_users(prefix: str, by: Ranking, currency: str, limit: int) -> Steps[tuple[TopUser, ...]]:
    """Users with the most orders, or who spent most in a currency; equal ones by id, backwards as Redis has
    them."""
    _check_limit(limit)
    keys = yield from _keys(prefix, ORDERS)
    kind, identity, field = (
        ("top-orders", "", "orders")
        if by == "orders"
        else ("top-spent", currency, f"spent:{currency}")
    )
    replies = yield [
        ("ZREVRANGE", keys.key(kind, bucket, identity), 0, limit - 1, "WITHSCORES")
        for bucket in range(BUCKETS)
    ]
    ranked = sorted(((float(score), one) for one, score in _scored(replies)), reverse=True)
    ids = [user_id for _, user_id in ranked[:limit]]
    # A score is a double; the exact sum stands with the user.
    places = [keys.key("user", bucket_of(one), one) for one in ids]
    sums = yield [("HGET", key, field) for key in places]
    rows = [
        TopUser(one, parsed(key, partial(int, total)))
        for key, one, total in zip(places, ids, sums, strict=True)
        if total
    ]
    return tuple(sorted(rows, key=lambda row: (row.value, row.user_id), reverse=True))


def saga(prefix: str, saga_id: str) -> Steps[SagaAnswer | None]:
    """How a saga stands; None if there is none."""
    keys = yield from _keys(prefix, SAGAS)
    key = keys.key("saga", bucket_of(saga_id), saga_id)
    replies = yield [("HGETALL", key)]
    return _saga(key, saga_id, replies[0])


def sagas(prefix: str, status: str | None, limit: int) -> Steps[tuple[SagaAnswer, ...]]:
    """Sagas of a status; None: of all that have not ended, those that need somebody first.

    Those in which nothing has moved for longest come first; of those that have ended, the newest.
    Raises ValueError.
    """
    _check_limit(limit)
    wanted = asked_for(status)
    keys = yield from _keys(prefix, SAGAS)
    newest_first = wanted[0] in ENDED
    command = "ZREVRANGEBYSCORE" if newest_first else "ZRANGEBYSCORE"
    begin, end = sorted(scores_of(wanted), reverse=newest_first)
    replies = yield [
        (command, keys.key("by-status", b), begin, end, "WITHSCORES", "LIMIT", 0, limit)
        for b in range(BUCKETS)
    ]
    ranked = sorted(((float(s), one) for one, s in _scored(replies)), reverse=newest_first)
    ids = [saga_id for _, saga_id in ranked[:limit]]
    places = [keys.key("saga", bucket_of(one), one) for one in ids]
    documents = yield [("HGETALL", key) for key in places]
    found = map(_saga, places, ids, documents)
    # Since the ranking was read, one may have moved on to another status.
    return tuple(one for one in found if one is not None and one.status in wanted)


def status(
    prefix: str, views: Iterable[View] = VIEWS, *, spread: bool = False
) -> Steps[tuple[ViewStatus, ...]]:
    """Generation and positions of each view."""
    wanted = tuple(views)
    live = yield from positions.live(prefix, wanted)
    found = yield from positions.read([Keys(prefix, v.name, live[v.name], spread) for v in wanted])
    return tuple(
        ViewStatus(
            view.name, live[view.name], {positions.field(p): at for p, at in of_view.items()}
        )
        for view, of_view in zip(wanted, found, strict=True)
    )


def wait_for(prefix: str, view: str, aggregate_id: str, version: int, timeout: float) -> Steps[int]:
    """Read your own writes: the version the view has, once it is ``version`` or newer.

    A deletion counts with the version at which it was made, for a day. Raises ViewTimeout, ValueError.
    """
    (wanted,) = named([view])
    until = time.monotonic() + timeout
    pause = _FIRST_PAUSE_S
    while True:
        seen = yield from _version(prefix, wanted, aggregate_id)
        if seen >= version:
            return seen
        if time.monotonic() + pause > until:
            raise ViewTimeout(view, aggregate_id, version, seen, timeout)
        yield Pause(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 2)


def _version(prefix: str, view: View, aggregate_id: str) -> Steps[int]:
    """What the view has of an aggregate; 0 if nothing."""
    keys = yield from _keys(prefix, view)
    bucket = bucket_of(aggregate_id)
    gone: Command = ("GET", keys.key("gone", bucket, aggregate_id))
    if view is not ORDERS:
        key = keys.key(_KIND_OF[view.name], bucket, aggregate_id)
        replies = yield [("HGET", key, "version"), gone]
        return max(parsed(key, partial(int, reply or 0)) for reply in replies)
    user_id = yield from _owner(keys, aggregate_id)
    if user_id is None:
        replies = yield [gone]
    else:
        replies = yield [("HGET", document_key(keys, user_id, aggregate_id), "version")]
    return parsed(f"of the order {aggregate_id}", partial(int, replies[0] or 0))


def _keys(prefix: str, view: View) -> Steps[Keys]:
    live = yield from positions.live(prefix, (view,))
    return Keys(prefix, view.name, live[view.name])


def _owner(keys: Keys, order_id: str) -> Steps[str | None]:
    replies = yield [("GET", place_key(keys, order_id))]
    found: str | None = replies[0]
    return None if found is None else user_of(found)


def _scored(replies: Iterable[list[str]]) -> Iterable[tuple[str, str]]:
    for reply in replies:
        yield from zip(reply[::2], reply[1::2], strict=True)


def _named(sums: dict[str, str], begin: str) -> dict[str, int]:
    """The sums whose name begins so, by the rest of their names."""
    return {k.removeprefix(begin): int(v) for k, v in sorted(sums.items()) if k.startswith(begin)}


def _order(key: str, order_id: str, reply: list[str]) -> OrderAnswer | None:
    row = pairs(reply)
    return parsed(key, lambda: _order_of(order_id, row)) if row else None


def _saga(key: str, saga_id: str, reply: list[str]) -> SagaAnswer | None:
    return parsed(key, lambda: answer(saga_id, pairs(reply)))


def _stock(key: str, sku: str, reply: list[str]) -> StockAnswer | None:
    row = pairs(reply)
    return parsed(key, lambda: _stock_of(sku, row)) if row else None


def _order_of(order_id: str, row: dict[str, str]) -> OrderAnswer:
    return OrderAnswer(
        order_id=order_id,
        version=int(row["version"]),
        status=row["status"],
        user_id=row["user_id"],
        currency=row["currency"],
        total=int(row["total"]),
        created_at_ms=int(row["created_at_ms"]),
        updated_at_ms=int(row["updated_at_ms"]),
        lines=_lines(row["lines"]),
    )


def _profile(row: dict[str, str]) -> Profile:
    return Profile(
        version=int(row["version"]),
        status=row["status"],
        name=row["name"],
        email=row.get("email"),
        registered_at_ms=int(row["registered_at_ms"]),
        updated_at_ms=int(row["updated_at_ms"]),
    )


def _stock_of(sku: str, row: dict[str, str]) -> StockAnswer:
    return StockAnswer(
        sku=sku,
        version=int(row["version"]),
        description=row["description"],
        on_hand=int(row["on_hand"]),
        reserved=int(row["reserved"]),
        available=int(row["available"]),
        threshold=int(row["threshold"]),
        updated_at_ms=int(row["updated_at_ms"]),
    )


def _check_limit(limit: int) -> None:
    if not 0 < limit <= LIMIT:
        raise ValueError(f"limit is {limit}; it has to be from 1 to {LIMIT}")
