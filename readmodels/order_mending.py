"""Makes single orders anew, and what a user's orders add up to; see `mending`.

All of a user lies in one bucket, so one transaction of Redis (WATCH, MULTI, EXEC) sees it at one moment and
replaces it if nothing moved. The sums are not moved by new - old, as `lua/order.lua` does, but computed from
the orders that stand: what is damaged may be the sum, or the row it was moved by.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from readmodels.documents import Pieces, Seen, may_replace
from readmodels.keys import Keys, bucket_of
from readmodels.orders import OrderRow, document_key, owner_of, place_key, user_of, write_commands
from readmodels.records import Change
from readmodels.steps import Steps, pairs
from runtime.redis import Command

CONTRIBUTION: Final = ("version", "status", "spent", "currency", "listed")
"""The fields of an order that its user's sums are made of."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the orders of a user add up to. ``sums``: the hash; ``listed``: members of the list;
    ``orders`` and ``spent`` (by currency): the scores; a score that would be 0 is absent.
    """

    sums: dict[str, str]
    listed: frozenset[str]
    orders: str | None
    spent: dict[str, str]

    def is_same(self, other: Totals) -> bool:
        """Whether both say the same; a score is a double, of which Redis tells 17 digits."""
        return (self.sums, self.listed) == (other.sums, other.listed) and _scores(self) == _scores(
            other
        )


def _scores(one: Totals) -> tuple[float | None, dict[str, float]]:
    spent = {currency: float(score) for currency, score in one.spent.items()}
    return None if one.orders is None else float(one.orders), spent


def totals(rows: Iterable[Mapping[str, str]]) -> Totals:
    """Pure. ``rows``: of each order that stands, the fields of CONTRIBUTION; what is damaged counts 0."""
    sums: defaultdict[str, int] = defaultdict(int)
    listed: set[str] = set()
    for row in rows:
        sums["orders"] += 1
        sums[f"status:{row.get('status', '')}"] += 1
        sums[f"spent:{row.get('currency', '')}"] += _number(row.get("spent"))
        listed.add(row.get("listed", ""))
    found = {name: str(value) for name, value in sums.items() if value}
    spent = {
        name.removeprefix("spent:"): value
        for name, value in found.items()
        if name.startswith("spent:")
    }
    return Totals(found, frozenset(listed), found.get("orders"), spent)


@dataclass(frozen=True, slots=True)
class UserPart:
    """All of a user at one moment: orders by id, sums, list, scores (orders; spent by currency)."""

    rows: dict[str, dict[str, str]]
    sums: dict[str, str]
    listed: frozenset[str]
    orders: str | None
    spent: dict[str, str]

    @property
    def stands(self) -> Totals:
        """The totals as they stand."""
        return Totals(self.sums, self.listed, self.orders, self.spent)


def read_user(
    keys: Keys, user: str, also: Sequence[str] = (), currencies: Collection[str] = ()
) -> Steps[UserPart]:
    """All of a user. It is of one moment only if the EXEC succeeds that has to follow on this connection:
    all keys that legitimately change with it are watched.

    ``also``: orders to look for beside those listed; ``currencies``: rankings, beside those of the orders
    and the sums.
    """
    bucket = bucket_of(user)
    sums_key, list_key = keys.key("user", bucket, user), keys.key("list", bucket, user)
    replies = yield [
        ("WATCH", sums_key, list_key),
        ("HGETALL", sums_key),
        ("ZRANGE", list_key, 0, -1),
    ]
    sums, listed = pairs(replies[1]), frozenset(replies[2])
    ids = sorted({member.partition(":")[2] for member in listed} | set(also))
    documents = [document_key(keys, user, order_id) for order_id in ids]
    watch: list[Command] = [("WATCH", *documents)] if documents else []
    found = yield [*watch, *(("HMGET", key, *CONTRIBUTION) for key in documents)]
    rows = {
        order_id: {name: value for name, value in zip(CONTRIBUTION, row, strict=True) if value}
        for order_id, row in zip(ids, found[1:], strict=True)
        if any(row)
    }
    wanted = {row.get("currency", "") for row in rows.values()} | set(currencies)
    wanted |= {name.removeprefix("spent:") for name in sums if name.startswith("spent:")}
    in_order = sorted(wanted)
    orders, *spent = yield [
        ("ZSCORE", keys.key("top-orders", bucket), user),
        *(("ZSCORE", keys.key("top-spent", bucket, one), user) for one in in_order),
    ]
    scores = {one: score for one, score in zip(in_order, spent, strict=True) if score is not None}
    return UserPart(rows, sums, listed, orders, scores)


def user_at_once(
    keys: Keys, user: str, also: Sequence[str] = (), currencies: Collection[str] = ()
) -> Steps[UserPart | None]:
    """All of a user at one moment; None if it moved meanwhile. On one connection."""
    part = yield from read_user(keys, user, also, currencies)
    replies = yield [("MULTI",), ("EXEC",)]
    return None if replies[-1] is None else part


def pieces(keys: Keys, rows: Mapping[str, OrderRow | None]) -> Steps[dict[str, Pieces]]:
    """The order, whose it is, and whether it is in the list, as they stand."""
    owners = yield [("GET", place_key(keys, order_id)) for order_id in rows]
    users = {
        order_id: user_of(owner) if owner else (row.user_id if row else "")
        for (order_id, row), owner in zip(rows.items(), owners, strict=True)
    }
    found = yield [("HGETALL", document_key(keys, user, one)) for one, user in users.items()]
    documents = [pairs(one) for one in found]
    listed = yield [
        ("ZSCORE", keys.key("list", bucket_of(user), user), document.get("listed", ""))
        for user, document in zip(users.values(), documents, strict=True)
    ]
    return {
        order_id: {"row": document or None, "place": owner, "listed": score is not None}
        for order_id, owner, document, score in zip(rows, owners, documents, listed, strict=True)
    }


def expected(row: OrderRow | None) -> Pieces:
    """What has to stand."""
    if row is None:
        return {"row": None, "place": None, "listed": False}
    return {"row": pairs(row.fields), "place": owner_of(row), "listed": True}


def seen(keys: Keys, order_id: str) -> Steps[tuple[str | None, Seen]]:
    """Whose an order is, and what stands of it there."""
    replies = yield [("GET", place_key(keys, order_id))]
    owner = replies[0]
    stands = yield from _stands(keys, user_of(owner or ""), order_id)
    return owner, stands


def mend(
    keys: Keys,
    order_id: str,
    change: Change[OrderRow] | None,
    before: tuple[str | None, Seen],
    strays: Sequence[str],
) -> Steps[bool]:
    """Put the row there (None: nothing) unless a newer one has come, and the totals of everybody who has or
    had the order. False if something came in between. On one connection.
    """
    owner, noted = before
    version = change.version if change else None
    row = change.row if change else None
    if row is not None and owner != owner_of(row):
        yield [
            ("SET", place_key(keys, order_id), owner_of(row))
        ]  # before the order; see lua/place.lua
    users = {*strays, *([user_of(owner)] if owner else []), *([row.user_id] if row else [])}
    for user in sorted(users):
        theirs = row if row is not None and row.user_id == user else None
        forced = Change(order_id, version, theirs, reset=True)
        known = noted if owner is not None and user_of(owner) == user else None
        if not (yield from mend_user(keys, user, [order_id], forced=forced, noted=known)):
            return False
    if row is not None:
        return True
    replies = yield [("GET", place_key(keys, order_id))]
    if replies[0] == owner and owner is not None:
        yield [("DEL", place_key(keys, order_id))]  # after the order
    return True


def mend_user(
    keys: Keys,
    user: str,
    also: Sequence[str] = (),
    *,
    forced: Change[OrderRow] | None = None,
    noted: Seen | None = None,
    currencies: Collection[str] = (),
) -> Steps[bool]:
    """Put one order there, if one is given and none that is newer has come, and in the same transaction all
    totals of the user. False if something came in between. On one connection.

    ``noted``: what stood of the order before the log was read; None: nobody knew to look there.
    ``currencies``: rankings that the user stands in, if more than the orders say.
    """
    part = yield from read_user(keys, user, also, currencies)
    commands: list[Command] = []
    rows = dict(part.rows)
    if forced is not None:
        stands = yield from _stands(keys, user, forced.id)
        if noted is None or may_replace(stands, forced, noted):
            commands, rows = _force(keys, user, forced, rows)
    wanted = totals(rows.values())
    replies = yield [
        ("MULTI",),
        *commands,
        *_totals_commands(keys, user, part, wanted),
        ("EXEC",),
    ]
    return replies[-1] is not None


def _stands(keys: Keys, user: str, order_id: str) -> Steps[Seen]:
    replies = yield [
        ("HGET", document_key(keys, user, order_id), "version"),
        ("GET", keys.key("gone", bucket_of(user), f"{user}/{order_id}")),
    ]
    return replies[0], replies[1]


def _force(
    keys: Keys, user: str, forced: Change[OrderRow], rows: dict[str, dict[str, str]]
) -> tuple[list[Command], dict[str, dict[str, str]]]:
    """The order as if none had stood: what the script then adds to the sums is replaced afterwards."""
    row = forced.row
    old = rows.get(forced.id, {})
    kept = {order_id: one for order_id, one in rows.items() if order_id != forced.id}
    owner = owner_of(row) if row else f"{user}/{old.get('currency', '')}"
    if row is not None:
        fields = pairs(row.fields)
        kept[forced.id] = {name: fields[name] for name in CONTRIBUTION if fields[name]}
    commands: list[Command] = [
        ("DEL", document_key(keys, user, forced.id)),
        ("DEL", keys.key("user", bucket_of(user), user)),
        *write_commands(keys, [(forced, owner)]),
    ]
    return commands, kept


def _totals_commands(keys: Keys, user: str, part: UserPart, wanted: Totals) -> list[Command]:
    bucket = bucket_of(user)
    sums_key, list_key = keys.key("user", bucket, user), keys.key("list", bucket, user)
    commands: list[Command] = [("DEL", sums_key)]
    if wanted.sums:
        fields = (text for pair in wanted.sums.items() for text in pair)
        commands.append(("HSET", sums_key, *fields))
    commands += [("ZREM", list_key, member) for member in sorted(part.listed - wanted.listed)]
    commands += [("ZADD", list_key, 0, member) for member in sorted(wanted.listed)]
    top = keys.key("top-orders", bucket)
    commands.append(("ZADD", top, wanted.orders, user) if wanted.orders else ("ZREM", top, user))
    for currency in sorted({*part.spent, *wanted.spent}):
        ranking = keys.key("top-spent", bucket, currency)
        score = wanted.spent.get(currency)
        commands.append(("ZADD", ranking, score, user) if score else ("ZREM", ranking, user))
    return commands


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
