"""Orders over all services under a random scheduler: whatever happens, each ends well or is undone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from schemas.inventory import Reservation, StockLevel
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState
from schemas.records import decode_event
from schemas.saga import ENDED, SagaState, SagaStatus
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.saga_stories import drain
from tests.support.world import World

SKUS = ("A", "B", "C")
STOCK = 3
TOKENS = ("tok_approve", "tok_approve", "tok_decline", "tok_drop", "tok_flaky", "tok_down")

orders = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(("ada", "ada", "ada", "gone", "nobody")),
            "skus": st.lists(st.sampled_from(SKUS), min_size=1, max_size=3),
            "payment_token": st.sampled_from(TOKENS),
            "coordination": st.sampled_from(("orchestration", "choreography")),
        }
    ),
    min_size=1,
    max_size=4,
)


def opened(chosen: list[dict[str, Any]]) -> World:
    """A shop with little stock, and these orders under way."""
    world = World()
    world.send(command("ada", "RegisterUser", name="Ada"))
    world.send(command("gone", "RegisterUser", name="Bob"))
    world.send(command("gone", "DeactivateUser", reason="left"))
    for sku in SKUS:
        world.send(command(sku, "RegisterItem", description="item", opening_stock=STOCK))
    drain(world)
    for number, order in enumerate(chosen):
        lines = [{"sku": sku, "quantity": 1, "unit_price": 100} for sku in order["skus"]]
        plain = {name: value for name, value in order.items() if name != "skus"}
        world.place(f"o-{number}", currency="GBP", lines=lines, **plain)
    return world


def check(world: World, chosen: list[dict[str, Any]], *, may_need_operator: bool = False) -> None:
    """Every conservation law."""
    sagas = world.states(SAGA, SagaState)
    for saga_id, saga in sagas.items():
        allowed = ENDED | ({SagaStatus.NEEDS_OPERATOR} if may_need_operator else set())
        assert saga.status in allowed, (saga_id, saga)
    placed = {
        f"o-{number}"
        for number in range(len(chosen))
        if f"o-{number}" in sagas and sagas[f"o-{number}"].status is SagaStatus.COMPLETED
    }
    made = world.states("order", OrderState)
    assert set(made) == placed
    assert all(order.status is OrderStatus.CONFIRMED for order in made.values())
    _check_stock(world, made)
    _check_money(world, made)


def _check_stock(world: World, made: dict[str, OrderState]) -> None:
    records = world.stores["inventory"].states.data
    roots = {key for key in records if b"/" not in key}
    levels = {key.decode(): _state(world, key, StockLevel) for key in roots}
    held = {key.decode(): _state(world, key, Reservation) for key in records if b"/" in key}
    wanted: Counter[str] = Counter()
    for order_id, order in made.items():
        for line in order.lines:
            wanted[f"{line.sku}/{order_id}"] += line.quantity
    assert {key: part.quantity for key, part in held.items()} == dict(wanted)
    for sku, level in levels.items():
        assert level.available >= 0
        reserved = sum(n for key, n in wanted.items() if key.startswith(f"{sku}/"))
        assert level.reserved == reserved


def _state(world: World, key: bytes, kind: type[Any]) -> Any:
    value = world.stores["inventory"].states.data[key]
    return msgspec.json.decode(decode_event(value).state, type=kind)


def _check_money(world: World, made: dict[str, OrderState]) -> None:
    payments = world.states("payment", PaymentState)
    for payment_id, payment in payments.items():
        kept = payment.captured - payment.refunded
        assert kept == (made[payment_id].total if payment_id in made else 0)
    for order_id in made:
        assert order_id in payments
    charged: Counter[str] = Counter()
    for entry in world.gateway.ledger.book().charges:
        charged[entry.key] += 1
    assert all(count == 1 for count in charged.values())


@settings(max_examples=150, deadline=None)
@given(orders, st.data())
def test_every_order_ends_well_or_is_undone_whatever_the_order_of_things(
    chosen: list[dict[str, Any]], data: st.DataObject
) -> None:
    world = opened(chosen)
    for _ in range(data.draw(st.integers(0, 60))):
        _disturb(world, data, lossy=False)
    drain(world)
    check(world, chosen)


@settings(max_examples=100, deadline=None)
@given(orders, st.data())
def test_lost_messages_leave_nothing_held_once_undoing_gets_through(
    chosen: list[dict[str, Any]], data: st.DataObject
) -> None:
    world = opened(chosen)
    for _ in range(data.draw(st.integers(0, 60))):
        _disturb(world, data, lossy=True)
    drain(world)
    check(world, chosen, may_need_operator=True)


def _disturb(world: World, data: st.DataObject, *, lossy: bool) -> None:
    """One thing that may happen."""
    what = data.draw(st.integers(0, 19))
    busy = world.busy()
    if what == 0:
        world.tick(data.draw(st.sampled_from((1, 400, 5_000, 20_000, 200_000))))
    elif what == 1:
        world.crash(data.draw(st.sampled_from(("saga", "inventory", "payment"))))
    elif busy:
        item = data.draw(st.sampled_from(sorted(busy, key=repr)))
        kind, place = item
        if what in (2, 3) and kind == "deliver":
            world.deliver(place, twice=True)
        elif what == 4 and lossy and kind == "deliver" and place[0] != "payment":
            world.lose(place)
        else:
            world.do(*item)
