"""An order without a coordinator: who reacts to what, who undoes what, and how order.create ends."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.order import OrderState, OrderStatus
from schemas.records import decode_command
from schemas.rejections import Code
from schemas.saga import SagaState, SagaStatus
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.saga_laws import check_laws
from tests.support.saga_stories import drain, last_outcome, order, settle, shop
from tests.support.world import TOPICS, World

PARTS = ("o-1:user", "o-1:inventory", "o-1:payment")
C, F, U = SagaStatus.COMPLETED, SagaStatus.FAILED, SagaStatus.COMPENSATED
GIVEN_UP_MS = 150_000


def choreographed(world: World, **one_order: Any) -> World:
    world.place("o-1", **one_order, coordination="choreography")
    return world


def ends(world: World) -> dict[str, SagaStatus]:
    """How the order's process and those of its parts ended, by suffix."""
    sagas = world.states(SAGA, SagaState)
    return {key.removeprefix("o-1"): saga.status for key, saga in sagas.items()}


def reactions_to(world: World, saga_id: str) -> list[str]:
    """Types of the commands that a saga got."""
    topic, key = TOPICS.commands(SAGA), saga_id.encode()
    found = (r for r in world.log if r.topic == topic and r.key == key)
    return [decode_command(record.value or b"").type for record in found]


def hear_nothing_of(world: World, *keys: str) -> None:
    """All goes on but that the reactor does not get to what these sagas tell."""
    silent = {key.encode() for key in keys}
    while busy := [i for i in world.busy() if i[0] != "hear" or i[1] not in silent]:
        world.do(*busy[0])


def test_each_service_begins_when_the_one_before_it_is_done() -> None:
    world = choreographed(shop(), **order())
    drain(world)
    assert ends(world) == {"": C, ":user": C, ":inventory": C, ":payment": C}
    begun = [r.key for r in world.log if r.topic == TOPICS.history(SAGA)]
    assert list(dict.fromkeys(begun)) == [b"o-1", *(part.encode() for part in PARTS)]
    assert world.history(SAGA, "o-1") == [
        "SagaStarted",
        *("SagaStepStarted", "SagaStepCompleted") * 4,
        "SagaCompleted",
    ]
    check_laws(world)


@pytest.mark.parametrize(
    ("wanted", "code", "expected"),
    [
        (order(user="nobody"), "user_not_found", {"": F, ":user": F}),
        (order(A=99), "insufficient_stock", {"": F, ":user": C, ":inventory": F}),
        (order(A=1, B=99), "insufficient_stock", {"": U, ":user": C, ":inventory": U}),
        (
            order("tok_decline"),
            "payment_declined",
            {"": U, ":user": C, ":inventory": U, ":payment": F},
        ),
    ],
    ids=["unknown user", "nothing reserved", "one SKU reserved", "declined"],
)
def test_what_fails_is_undone_by_whoever_did_it(
    wanted: dict[str, Any], code: str, expected: dict[str, SagaStatus]
) -> None:
    world = choreographed(shop(), **wanted)
    drain(world)
    assert ends(world) == expected
    assert world.saga("o-1").code == code
    check_laws(world)


def test_an_order_that_is_refused_has_both_parts_taken_back_the_last_first() -> None:
    world = shop()
    line = {"sku": "C", "quantity": 1, "unit_price": 1}
    world.send(command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=[line]))
    drain(choreographed(world, **order()))
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (U, "order_already_exists")
    assert saga.undone == ("processPayment", "reserveInventory")
    assert ends(world) == {"": U, ":user": C, ":inventory": U, ":payment": U}
    assert world.states("order", OrderState)["o-1"].status is OrderStatus.CREATED


def test_a_completed_order_that_is_ordered_back_is_cancelled_and_its_parts_taken_back() -> None:
    world = choreographed(shop(), **order())
    drain(world)
    world.send(command("o-1", "CompensateSaga", by="ann", reason="customer called"))
    drain(world)
    assert world.saga("o-1").undone == ("createOrder", "processPayment", "reserveInventory")
    assert world.states("order", OrderState)["o-1"].status is OrderStatus.CANCELLED
    check_laws(world)


def test_a_part_of_which_nobody_hears_is_given_up_and_all_that_follow_it_are_barred() -> None:
    world = choreographed(shop(), **order())
    hear_nothing_of(world, "o-1:user")
    assert world.saga("o-1:user").status is C
    world.tick(GIVEN_UP_MS)
    hear_nothing_of(world, "o-1:user")
    drain(world)  # only now inventory hears that the user is validated
    assert ends(world) == {"": F, ":user": F, ":inventory": F, ":payment": F}
    assert world.history(SAGA, "o-1:inventory") == ["SagaStarted", "SagaFailed"]
    check_laws(world)


def test_a_part_that_was_done_in_silence_is_taken_back() -> None:
    world = choreographed(shop(), **order())
    hear_nothing_of(world, "o-1:inventory")
    assert world.saga("o-1:inventory").status is C
    world.tick(GIVEN_UP_MS)
    drain(world)
    assert (world.saga("o-1").status, world.saga("o-1").code) == (U, "timed_out")
    assert world.saga("o-1:inventory").status is U
    assert world.history(SAGA, "o-1:payment") == ["SagaStarted", "SagaFailed"]
    check_laws(world)


def test_a_part_that_an_operator_puts_right_ends_the_order_too() -> None:
    world = shop()
    world.refusing = {"ReleaseReservation"}
    drain(choreographed(world, **order("tok_decline")))
    needs = SagaStatus.NEEDS_OPERATOR
    assert (world.saga("o-1").status, world.saga("o-1:inventory").status) == (needs, needs)
    world.refusing = set()
    world.send(command("o-1:inventory", "RetrySaga", by="ann"))
    drain(world)
    assert ends(world) == {"": U, ":user": C, ":inventory": U, ":payment": F}
    check_laws(world)


def test_an_order_that_is_tried_again_hears_of_its_parts_in_any_order() -> None:
    world = shop()
    world.refusing = {"CreateOrder", "RequestRefund", "ReleaseReservation"}
    drain(choreographed(world, **order()))
    world.refusing = set()
    for saga_id in ("o-1", "o-1:inventory", "o-1:payment"):
        world.send(command(saga_id, "RetrySaga", by="ann"))
        settle(world)
    assert ends(world) == {"": U, ":user": C, ":inventory": U, ":payment": U}
    check_laws(world)


def test_a_part_that_undid_what_it_had_done_counts_as_undone() -> None:
    world = choreographed(shop(), **order(A=1, B=99))
    drain(world)
    assert (world.saga("o-1").code, world.saga("o-1").undone) == (
        "insufficient_stock",
        ("reserveInventory",),
    )


def test_an_operator_takes_back_an_order_and_not_one_of_its_parts() -> None:
    world = choreographed(shop(), **order())
    drain(world)
    for part in PARTS:
        world.send(command(part, "CompensateSaga", by="ann", reason="x"))
        drain(world)
        refused = last_outcome(world)
        assert refused.code is Code.INVALID_TRANSITION
        assert "is a part of another saga: have that one compensated" in (refused.message or "")
    assert ends(world) == {"": C, ":user": C, ":inventory": C, ":payment": C}
    check_laws(world)


def test_events_that_are_heard_twice_change_nothing() -> None:
    for token in ("tok_approve", "tok_decline"):
        once, again = (choreographed(shop(), **order(token)) for _ in range(2))
        drain(once)
        while busy := again.busy():
            what, place = busy[0]
            if what == "hear":
                again.hear(place, twice=True)
            again.do(what, place)
        assert ends(again) == ends(once)
        for saga_id in ("o-1", *PARTS):
            assert again.history(SAGA, saga_id) == once.history(SAGA, saga_id)
        check_laws(again)
