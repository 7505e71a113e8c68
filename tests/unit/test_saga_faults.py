"""What a saga does when it is refused, not answered, or answered twice."""

from __future__ import annotations

from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState, PaymentStatus
from schemas.saga import SagaState, SagaStatus, StepStatus
from schemas.topics import SAGA
from tests.support import saga_stories as stories
from tests.support.commanding import command
from tests.support.saga_faults import (
    PAUSE_MS,
    TIMEOUT_MS,
    asked,
    failing,
    reserved,
    settle_but,
    unreleased,
)
from tests.support.saga_laws import check_laws
from tests.support.saga_stories import drain, order, settle, shop


def test_a_passing_refusal_is_asked_again_after_a_pause_under_the_next_id() -> None:
    world = failing("ReserveStock")
    assert world.saga("o-1").steps[1].answers == "a"
    world.refusing.clear()
    world.tick(PAUSE_MS - 1)
    settle(world)
    assert asked(world, "inventory") == ["reserveInventory.0A"]
    world.tick(1)
    settle(world)
    assert asked(world, "inventory") == ["reserveInventory.0A", "reserveInventory.0B"]
    assert world.saga("o-1").status is SagaStatus.COMPLETED


def test_what_is_refused_in_passing_each_time_fails_with_that_reason() -> None:
    world = failing("RequestPayment")
    drain(world)
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (SagaStatus.COMPENSATED, "internal_error")
    assert asked(world, "payment") == [f"processPayment.0{letter}" for letter in "ABC"]
    assert not reserved(world)


def test_what_was_refused_in_passing_and_then_not_answered_has_timed_out() -> None:
    world = failing("ReserveStock")
    for wait in (PAUSE_MS, 2 * TIMEOUT_MS, 4 * TIMEOUT_MS):
        world.tick(wait)
        settle_but(world, "inventory")
    saga = world.saga("o-1")
    assert (saga.code, saga.message) == ("timed_out", "1 of 1 commands were not answered in time")


def test_why_a_command_was_refused_is_not_forgotten_when_another_is_accepted() -> None:
    world = shop()
    world.place("o-1", **order(A=1, B=1))
    settle_but(world, "inventory")
    for wait in (TIMEOUT_MS, 2 * TIMEOUT_MS):  # the third attempt is the last
        world.tick(wait)
        settle_but(world, "inventory")
    world.refusing = {"ReserveStock"}
    world.deliver(("inventory", b"A"))
    world.refusing = set()
    world.deliver(("inventory", b"B"))
    settle_but(world, "inventory")
    assert world.saga("o-1").steps[1].answers == "a+"
    world.tick(4 * PAUSE_MS)
    settle_but(world, "inventory")
    assert world.saga("o-1").code == "internal_error"


def test_a_pause_does_not_put_off_what_is_due_for_others() -> None:
    world = shop()
    world.place("o-1", **order(A=1, B=1))
    settle_but(world, "inventory")
    due = world.saga("o-1").wakes_at_ms
    world.tick(TIMEOUT_MS - PAUSE_MS + 1)
    world.refusing = {"ReserveStock"}
    world.deliver(("inventory", b"A"))
    settle_but(world, "inventory")
    assert (world.saga("o-1").steps[1].answers, world.saga("o-1").wakes_at_ms) == ("aA", due)


def test_only_the_command_that_was_refused_in_passing_gets_a_new_id() -> None:
    world = shop()
    world.place("o-1", **order(A=1, B=1))
    settle_but(world, "inventory")
    world.deliver(("inventory", b"A"))
    world.refusing = {"ReserveStock"}
    world.deliver(("inventory", b"B"))
    world.refusing = set()
    settle(world)
    world.tick(PAUSE_MS)
    settle(world)
    assert asked(world, "inventory")[2:] == ["reserveInventory.1B"]
    assert world.saga("o-1").status is SagaStatus.COMPLETED


def test_a_passing_refusal_that_comes_twice_does_not_count_for_the_next_id() -> None:
    world = shop()
    world.place("o-1", **order(A=1))
    settle_but(world, "inventory")
    world.tick(TIMEOUT_MS)
    settle_but(world, "inventory")
    place = ("inventory", b"A")
    assert len(world.queues[place]) == 2  # asked twice under the same id
    world.refusing = {"ReserveStock"}
    world.deliver(place)
    settle_but(world, "inventory")
    world.refusing = set()
    world.tick(TIMEOUT_MS)
    settle_but(world, "inventory")
    world.deliver(place)  # the first outcome again, when the second id is waited for
    settle_but(world, "inventory")
    assert world.saga("o-1").steps[1].answers == "B"
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPLETED
    check_laws(world)


def test_a_lost_answer_is_asked_for_again_and_the_repetition_counts() -> None:
    world = shop()
    world.place("o-1", **order(A=1))
    settle_but(world, "inventory")
    world.deliver(("inventory", b"A"))
    world.lose((SAGA, b"o-1"))
    settle(world)
    assert world.saga("o-1").steps[1].answers == "A"
    world.tick(TIMEOUT_MS)
    settle(world)
    assert asked(world, "inventory") == ["reserveInventory.0A"] * 2
    assert world.saga("o-1").status is SagaStatus.COMPLETED
    assert reserved(world) == {"A": 1}


def test_the_wait_doubles_with_each_attempt() -> None:
    world = shop()
    world.place("o-1", **order(A=1))
    settle_but(world, "inventory")
    waits = []
    for _ in range(3):
        wakes_at_ms = world.saga("o-1").wakes_at_ms or 0
        waits.append(wakes_at_ms - world.now_ms)
        world.tick(waits[-1])
        settle_but(world, "inventory")
    assert waits == [TIMEOUT_MS, 2 * TIMEOUT_MS, 4 * TIMEOUT_MS]
    assert world.saga("o-1").status is SagaStatus.COMPENSATING
    drain(world)  # reserved and released at last, in this order
    assert world.saga("o-1").code == "timed_out"
    assert not reserved(world)


def test_no_message_that_comes_again_changes_anything() -> None:
    for story in (stories.placed, stories.declined, stories.timed_out, stories.taken_back):
        world = story()
        before = world.states(SAGA, SagaState), reserved(world), world.history(SAGA, "o-1")
        for number in range(len(world.sent)):
            world.repeat(number)
        drain(world)
        assert (world.states(SAGA, SagaState), reserved(world)) == before[:2]
        assert world.history(SAGA, "o-1") == before[2]


def test_a_refused_order_undoes_the_rest_and_leaves_alone_what_is_not_its_own() -> None:
    world = shop()
    line = {"sku": "C", "quantity": 1, "unit_price": 1}
    world.send(command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=[line]))
    world.place("o-1", **order())
    drain(world)
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (SagaStatus.COMPENSATED, "order_already_exists")
    assert saga.undone == ("processPayment", "reserveInventory")
    assert world.states("order", OrderState)["o-1"].status is OrderStatus.CREATED
    assert world.states("payment", PaymentState)["o-1"].status is PaymentStatus.REFUNDED


def test_a_gift_is_not_paid_for() -> None:
    world = shop()
    line = {"sku": "A", "quantity": 1, "unit_price": 0}
    world.place("o-1", **order() | {"lines": [line]})
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPLETED
    assert not world.states("payment", PaymentState)


def test_what_is_refused_undoing_again_and_again_waits_for_an_operator() -> None:
    world = unreleased()
    saga = world.saga("o-1")
    assert saga.status is SagaStatus.NEEDS_OPERATOR
    assert (saga.steps[1].status, saga.steps[1].code) == (
        StepStatus.NOT_COMPENSATED,
        "internal_error",
    )
    assert asked(world, "inventory")[1:] == [f"undo-reserveInventory.0{a}" for a in "ABCDEF"]
    assert reserved(world) == {"A": 1}


def test_who_takes_over_finds_the_appointments_again() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    world.crash(SAGA)
    world.tick(TIMEOUT_MS, lost=True)  # the transaction with the due one fails, too
    world.tick(0)
    settle(world)
    assert world.saga("o-1").steps[2].attempt == 2
