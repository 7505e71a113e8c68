"""The view `orders`: every order, and for each user counts, amounts and the list of orders.

An order and the user's sums lie in the user's bucket and change in one Lua call, so they never
disagree. Whose order it is stands under the order's id (its *place*), written before the order and
removed after it: a tombstone, which has no value, then always finds what to take away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from readmodels.keys import Keys, bucket_of
from readmodels.records import Change
from readmodels.scripts import ORDER, PLACE, BucketCalls
from readmodels.steps import Steps
from runtime.redis import Command
from schemas.decoding import decoder
from schemas.ids import is_id
from schemas.money import MAX_AMOUNT
from schemas.order import OrderState, OrderStatus

_decode: Final = decoder(OrderState)
_encode: Final = msgspec.json.Encoder().encode
_is_currency: Final = re.compile(r"[A-Z]{3}", re.ASCII).fullmatch
_STATUS: Final = {status: status.value for status in OrderStatus}

TIME_DIGITS: Final = 15
TIME_LIMIT_MS: Final = 10**TIME_DIGITS
"""Times are below this: one more digit would not sort in a user's list."""

_ROUNDS: Final = 5  # an order changes hands at most once a record; more means two workers at odds


class OrderRow(msgspec.Struct, frozen=True, gc=False):
    """What one order contributes: its document, and what its user's sums get from it."""

    user_id: str
    currency: str
    status: str
    spent: int
    listed: str
    fields: list[str]


class Restless(RuntimeError):
    """The owner of an order changed again and again while it was written; the batch is repeated."""


def project(order_id: str, version: int, state: bytes) -> OrderRow:
    """Pure. Raises msgspec.MsgspecError (or ValueError) for what is no order's state."""
    order = _decode(state)
    if not (is_id(order.user_id) and _is_currency(order.currency)):
        raise msgspec.ValidationError("user_id or currency is none")
    if not 0 <= order.total <= MAX_AMOUNT:
        raise msgspec.ValidationError("total is out of range")
    if not 0 <= order.created_at_ms < TIME_LIMIT_MS or not 0 <= order.updated_at_ms < TIME_LIMIT_MS:
        raise msgspec.ValidationError("created_at_ms or updated_at_ms is out of range")
    status = _STATUS[order.status]
    spent = 0 if order.status is OrderStatus.CANCELLED else order.total
    total = str(order.total)
    listed = list_member(order.created_at_ms, order_id)
    # Written out, not computed: this runs for every event.
    fields = [
        "version", str(version),
        "status", status,
        "user_id", order.user_id,
        "currency", order.currency,
        "total", total,
        "spent", total if spent else "0",
        "created_at_ms", str(order.created_at_ms),
        "updated_at_ms", str(order.updated_at_ms),
        "listed", listed,
        "lines", _encode(order.lines).decode(),
    ]  # fmt: skip
    return OrderRow(order.user_id, order.currency, status, spent, listed, fields)


def list_member(created_at_ms: int, order_id: str) -> str:
    """An order in its user's list: sorts by time, then by id."""
    return f"{str(created_at_ms).zfill(TIME_DIGITS)}:{order_id}"


def document_key(keys: Keys, user_id: str, order_id: str) -> str:
    """Where an order stands, once its owner is known."""
    return keys.key("order", bucket_of(user_id), f"{user_id}/{order_id}")


def place_key(keys: Keys, order_id: str) -> str:
    """Where it stands whose order it is."""
    return keys.key("place", bucket_of(order_id), order_id)


Owner = str  # <user id>/<currency>; neither has a slash
_Change = Change[OrderRow]


def owner_of(row: OrderRow) -> Owner:
    """Where an order belongs."""
    return f"{row.user_id}/{row.currency}"


def user_of(owner: Owner) -> str:
    """The user of what stands at a place."""
    return owner.rpartition("/")[0]


def unit_of(kind: str, identity: str, member: str) -> str:
    """An order with its place is a unit, and so is what a user's orders add up to."""
    match kind:
        case "order":
            return f"order {identity.partition('/')[2]}"
        case "place":
            return f"order {identity}"
        case "user" | "list":
            return f"user {identity}"
        case _:
            return f"user {member}"


def touched(keys: Keys, changes: Sequence[_Change]) -> Steps[set[str]]:
    """The units that these changes may change: orders, those who have them and those who had them."""
    units = {f"order {change.id}" for change in changes}
    units |= {f"user {change.row.user_id}" for change in changes if change.row}
    owners = yield [("GET", place_key(keys, change.id)) for change in changes]
    return units | {f"user {user_of(owner)}" for owner in owners if owner}


def apply(keys: Keys, changes: Iterable[_Change]) -> Steps[None]:
    """Bring the changes (one an order) into the view. Repeating it, also in part, changes nothing."""
    pending = {change.id: change for change in changes}
    released: dict[str, Owner] = {}
    ready: list[_Change] = []
    for _ in range(_ROUNDS):
        if not pending:
            break
        owners, late = yield from _find_places(keys, pending, released)
        ready += [c for c in pending.values() if c.row and c.id not in owners and c.id not in late]
        pending = {order_id: pending[order_id] for order_id in owners}
        if pending:
            late = yield from _release(keys, pending, owners)
            pending = {order_id: c for order_id, c in pending.items() if order_id not in late}
        released = owners
    if pending:
        raise Restless(f"{Restless.__doc__} First: {next(iter(pending))}")
    yield from _write(keys, [(c, owner_of(c.row)) for c in ready if c.row])


def _find_places(
    keys: Keys, pending: dict[str, _Change], released: dict[str, Owner]
) -> Steps[tuple[dict[str, Owner], set[str]]]:
    """Claim or clear the places. Returns who has to give up an order first, and what came too late."""
    calls = BucketCalls()
    for change in pending.values():
        bucket = bucket_of(change.id)
        call = calls.of(bucket)
        base = keys.base(bucket)
        call.add(
            change.id,
            call.key(f"{base}place:{change.id}"),
            call.key(f"{base}gone:{change.id}"),
            _text(change.version),
            int(change.reset),
            owner_of(change.row) if change.row else "",
            released.get(change.id, ""),
        )
    replies = yield calls.commands(PLACE)
    owners: dict[str, Owner] = {}
    late: set[str] = set()
    for call, reply in zip(calls.calls, replies, strict=True):
        for number, owner in zip(reply[::2], reply[1::2], strict=True):
            if owner:
                owners[call.ids[number - 1]] = owner
            else:
                late.add(call.ids[number - 1])
    return owners, late


def _release(keys: Keys, pending: dict[str, _Change], owners: dict[str, Owner]) -> Steps[set[str]]:
    """Take orders away from their owners. Returns those where the owner has a newer one."""
    gone: list[tuple[_Change, Owner]] = []
    for order_id, change in pending.items():
        version = change.version
        if version is not None and change.row is not None:
            version -= 1  # it goes on elsewhere: the version itself is not deleted
        gone.append((Change(order_id, version, None, change.reset), owners[order_id]))
    return (yield from _write(keys, gone))


def _write(keys: Keys, changes: list[tuple[_Change, Owner]]) -> Steps[set[str]]:
    """Put or delete orders and move their users' sums. Returns those where a newer one stands."""
    calls = _write_calls(keys, changes)
    replies = yield calls.commands(ORDER)
    return {
        call.ids[number - 1]
        for call, reply in zip(calls.calls, replies, strict=True)
        for number in reply
    }


def write_commands(keys: Keys, changes: list[tuple[_Change, Owner]]) -> list[Command]:
    """The calls that put or delete orders where their owners' orders stand."""
    return _write_calls(keys, changes).commands(ORDER)


def _write_calls(keys: Keys, changes: list[tuple[_Change, Owner]]) -> BucketCalls:
    calls = BucketCalls(keys.stamps)
    for change, owner in changes:
        user, _, currency = owner.rpartition("/")
        bucket = bucket_of(user)
        call = calls.of(bucket)
        base = keys.base(bucket)
        identity = f"{user}/{change.id}"
        row = change.row
        call.add(
            change.id,
            call.key(f"{base}order:{identity}"),
            call.key(f"{base}gone:{identity}"),
            call.key(f"{base}user:{user}"),
            call.key(f"{base}list:{user}"),
            call.key(f"{base}top-orders"),
            call.key(f"{base}top-spent:{currency}"),
            _text(change.version),
            int(change.reset),
            user,
            row.listed if row else "",
            row.status if row else "",
            currency,
            str(row.spent) if row else "0",
            row.fields if row else [],
            identity,
        )
    return calls


def _text(version: int | None) -> str:
    return "" if version is None else str(version)
