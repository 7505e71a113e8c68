"""The laws of conservation: what has to hold between states, whatever happened. Pure.

Each function says what is broken, as findings; none, if all is well. Tests hold the whole system to the same
functions. Only orders that a saga placed are judged: who makes one by hand, answers for its stock and money.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sagas.choreography import ORDER_CREATE, PARTS
from sagas.create_order import SAGA as COORDINATED
from schemas.ids import scoped_id
from schemas.inventory import Reservation, StockLevel
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState
from schemas.saga import ENDED, SagaState, SagaStatus
from verification.drift import Drift, Kind, Level
from verification.folding import States

PLACING: Final = frozenset({COORDINATED.name, ORDER_CREATE})
"""The sagas that place an order: the one that coordinates it, and the choreographed one."""

CREATED: Final = "createOrder"
"""The step that makes the order itself."""

Cut = Mapping[str, States]
"""Aggregate → its newest states. Those of different aggregates were read one after the other."""


def stock(sku: str, level: StockLevel, held: int) -> Iterator[Drift]:
    """What is there is what came in and did not go out, none of it is promised twice, and what is promised
    is the sum of the open reservations (``held``).
    """
    made = level.received + level.adjusted - level.shipped
    if level.on_hand != made:
        yield _broken("on_hand = received + adjusted - shipped", sku, made, level.on_hand)
    if level.available < 0:
        yield _broken("available >= 0", sku, 0, level.available)
    if level.reserved != held:
        yield _broken("reserved = sum of the open reservations", sku, held, level.reserved)


def payment(payment_id: str, one: PaymentState) -> Iterator[Drift]:
    """Nothing is given back that was not taken, nor taken that was not asked for."""
    if not 0 <= one.refunded <= one.captured <= one.requested:
        amounts = {"requested": one.requested, "captured": one.captured, "refunded": one.refunded}
        yield _broken("0 <= refunded <= captured <= requested", payment_id, None, amounts)


def order(
    order_id: str,
    saga: SagaState,
    made: OrderState | None,
    paid: PaymentState | None,
    held: Mapping[str, int],
) -> Iterator[Drift]:
    """Of a saga that has ended: an order that was placed is there, its pieces are held and its money is taken
    as long as it waits to be shipped; of one that was not, nothing is left. ``held``: SKU → pieces.
    """
    kept = 0 if paid is None else paid.captured - paid.refunded
    if saga.status is SagaStatus.COMPLETED:
        if made is None:
            yield _broken("a placed order is there", order_id, "an order", None)
        elif made.status is OrderStatus.CONFIRMED:
            wanted: dict[str, int] = {}
            for line in made.lines:
                wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
            if dict(held) != wanted:
                yield _broken("an order's pieces are held", order_id, wanted, dict(held))
            if kept != made.total:
                yield _broken("captured - refunded = billed", order_id, made.total, kept)
        return
    if CREATED in saga.undone and made is not None and made.status is not OrderStatus.CANCELLED:
        yield _broken("an order that was undone is cancelled", order_id, None, made.status.value)
    if held:
        yield _broken("nothing is held for an order that failed", order_id, {}, dict(held))
    if kept:
        yield _broken("captured - refunded = billed", order_id, 0, kept)


def all_laws(cut: Cut) -> tuple[int, list[Drift]]:
    """How many aggregates were judged, and what is broken among them."""
    found: list[Drift] = []
    parts = cut["inventory"].parts
    levels = _roots(cut, "inventory")
    for sku, level in levels.items():
        held = sum(one.quantity for one in parts.get(sku, {}).values())
        found += stock(sku, cast(StockLevel, level), held)
    payments = _roots(cut, "payment")
    for payment_id, one in payments.items():
        found += payment(payment_id, cast(PaymentState, one))
    orders, sagas = _roots(cut, "order"), _roots(cut, "saga")
    held_for = held_by_order(parts)
    judged = 0
    for saga_id in ended_orders(sagas):
        judged += 1
        saga = cast(SagaState, sagas[saga_id])
        mine = _makers(saga_id, sagas)
        made, paid = mine.own(orders.get(saga_id)), mine.own(payments.get(saga_id))
        reserved = held_for.get(saga_id, {})
        held = {sku: one.quantity for sku, one in reserved.items() if mine.own(one) is not None}
        found += order(saga_id, saga, made, paid, held)
    return len(levels) + len(payments) + judged, found


def held_by_order(
    parts: Mapping[str, Mapping[str, Reservation]],
) -> dict[str, dict[str, Reservation]]:
    """Order → SKU → its reservation. ``parts``: SKU → reservation → its state."""
    held: dict[str, dict[str, Reservation]] = {}
    for sku, reservations in parts.items():
        for order_id, one in reservations.items():
            held.setdefault(order_id, {})[sku] = one
    return held


T = TypeVar("T", OrderState, PaymentState, Reservation)


@dataclass(frozen=True, slots=True)
class Makers:
    """Who makes what belongs to an order: its sagas. None: of an older release, which signed nothing."""

    signatures: frozenset[str | None] | None

    def own(self, one: T | None) -> T | None:
        """Return it if it is the order's own, and not somebody else's of the same id."""
        if one is None or self.signatures is None or one.made_by in self.signatures:
            return one
        return None


def _makers(order_id: str, sagas: Mapping[str, Any]) -> Makers:
    if sagas[order_id].scope is None:
        return Makers(None)
    own = scoped_id(order_id, sagas[order_id].scope)
    parts = (f"{order_id}{part.suffix}" for part in PARTS)
    scopes = {one: sagas[one].scope for one in parts if one in sagas and sagas[one].made_by == own}
    return Makers(frozenset({own, *(scoped_id(*of) for of in scopes.items() if of[1])}))


def ended_orders(sagas: Mapping[str, Any]) -> list[str]:
    """Ids of the sagas that place an order, and have ended, with all that other services do of it."""
    suffixes = [part.suffix for part in PARTS]
    open_ones = {saga_id for saga_id, saga in sagas.items() if saga.status not in ENDED}
    return [
        saga_id
        for saga_id in sagas
        if sagas[saga_id].saga in PLACING
        and saga_id not in open_ones
        and not any(f"{saga_id}{suffix}" in open_ones for suffix in suffixes)
    ]


def _roots(cut: Cut, aggregate: str) -> dict[str, Any]:
    return {identity: root for identity, (_, root) in cut[aggregate].roots.items()}


def _broken(law: str, key: str, expected: Any, found: Any) -> Drift:
    return Drift(Level.LAW, Kind.BROKEN, law, key, expected, found)
