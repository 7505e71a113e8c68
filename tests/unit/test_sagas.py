"""What a saga does, step by step, with a clock that the test turns."""

from __future__ import annotations

from typing import Any

import pytest

from commands.aggregate import Decision, Loaded
from orderflow.memory_pipeline import SCOPE
from sagas import SAGA, marks
from sagas.messages import CompensateSaga, StartSaga
from sagas.tokens import Token, parse_token
from schemas.inventory import StockLevel
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState, PaymentStatus
from schemas.records import decode_command, decode_outcome
from schemas.rejections import Code, Rejection
from schemas.saga import SagaFailed, SagaStarted, SagaStatus, StepStatus
from tests.support import saga_stories as stories
from tests.support.commanding import command
from tests.support.saga_stories import drain, order, settle, shop
from tests.support.world import TOPICS, World


def level(world: World, sku: str) -> StockLevel:
    return world.states("inventory", StockLevel)[sku]


def sent(world: World, aggregate: str) -> list[str]:
    """Command ids on an aggregate's topic that a saga sent, in order."""
    records = (r for r in world.log if r.topic == TOPICS.commands(aggregate))
    return [decode_command(record.value or b"").command_id for record in records]


def test_an_order_goes_through_its_steps_and_reserves_all_skus_at_once() -> None:
    world = stories.placed()
    assert world.saga("o-1").status is SagaStatus.COMPLETED
    assert world.history("saga", "o-1") == [
        "SagaStarted",
        *("SagaStepStarted", "SagaStepCompleted"),
        *("SagaStepStarted", "SagaAnswered", "SagaStepCompleted"),
        *("SagaStepStarted", "SagaStepCompleted") * 2,
        "SagaCompleted",
    ]
    assert sent(world, "inventory") == [
        f"o-1.{SCOPE}.reserveInventory.0A",
        f"o-1.{SCOPE}.reserveInventory.1A",
    ]
    made = world.states("order", OrderState)["o-1"]
    assert (made.status, made.total) == (OrderStatus.CONFIRMED, 300)
    assert (level(world, "A").reserved, level(world, "B").reserved) == (1, 2)


def test_an_unknown_user_fails_it_with_nothing_to_undo() -> None:
    saga = stories.unknown_user().saga("o-1")
    assert (saga.status, saga.code, saga.undone) == (SagaStatus.FAILED, "user_not_found", ())


def test_when_one_sku_is_short_exactly_what_was_reserved_is_released() -> None:
    world = shop()
    world.place("o-1", **order(A=1, B=99, C=1))
    drain(world)
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (SagaStatus.COMPENSATED, "insufficient_stock")
    assert all(level(world, sku).reserved == 0 for sku in "ABC")
    assert sent(world, "inventory")[3:] == [
        f"o-1.{SCOPE}.undo-reserveInventory.0A",
        f"o-1.{SCOPE}.undo-reserveInventory.2A",  # not answered yet: undone as well
    ]
    assert world.saga("o-1").steps[1].undo_answers in ("+ +", "+ =")


def test_a_declined_payment_says_why_and_releases_the_stock() -> None:
    world = stories.declined()
    saga = world.saga("o-1")
    assert (saga.status, saga.code, saga.message, saga.undone) == (
        SagaStatus.COMPENSATED,
        "payment_declined",
        "the card was declined",
        ("reserveInventory",),
    )
    assert level(world, "A").reserved == 0


def test_what_is_not_answered_is_asked_again_under_the_same_id_and_then_undone() -> None:
    world = stories.timed_out()
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (SagaStatus.COMPENSATED, "timed_out")
    assert saga.undone == ("processPayment", "reserveInventory")
    assert saga.steps[2].attempt == 3
    requests = [
        one for one in sent(world, "payment") if one.startswith(f"o-1.{SCOPE}.processPayment")
    ]
    assert requests == [f"o-1.{SCOPE}.processPayment.0A"] * 3
    assert world.states("payment", PaymentState)["o-1"].status is PaymentStatus.FAILED
    assert not world.gateway.ledger.book().charges


def test_a_refusal_that_may_pass_is_asked_again_after_a_pause_under_the_next_id() -> None:
    world = shop()
    world.place("o-1", **order())
    world.deliver(("saga", b"o-1"))
    world.lose(("user", b"ada"))
    refused: dict[str, Any] = {
        "type": "ValidateUser",
        "accepted": False,
        "code": "internal_error",
    }
    world.send(command("o-1", "RecordAnswer", token="validateUser/0", **refused))
    settle(world)
    assert world.saga("o-1").steps[0].answers == "a"
    world.tick(501)
    settle(world)
    assert sent(world, "user") == [f"o-1.{SCOPE}.validateUser.0A", f"o-1.{SCOPE}.validateUser.0B"]
    assert world.saga("o-1").status is SagaStatus.COMPLETED


def test_an_appointment_that_is_not_due_changes_nothing_and_an_old_one_neither() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    before = world.saga("o-1")
    world.tick(1_000)
    settle(world)
    assert world.saga("o-1") == before
    world.send(command("o-1", "WakeSaga", timer=before.timer - 1))
    settle(world)
    assert world.saga("o-1") == before


def test_a_late_answer_changes_nothing() -> None:
    world = stories.timed_out()
    before = world.saga("o-1")
    world.send(
        command(
            "o-1", "RecordAnswer", token="processPayment/0", type="CapturePayment", accepted=True
        )
    )
    world.send(command("o-1", "RecordAnswer", token="no such/7", type="X", accepted=True))
    drain(world)
    assert world.saga("o-1") == before


def test_what_cannot_be_undone_waits_for_an_operator_while_the_rest_is_undone() -> None:
    world = stories.stuck()
    saga = world.saga("o-1")
    assert (saga.status, saga.code) == (SagaStatus.NEEDS_OPERATOR, "order_already_exists")
    by_name = {step.name: step.status for step in saga.steps}
    assert by_name["processPayment"] is StepStatus.NOT_COMPENSATED
    assert by_name["reserveInventory"] is StepStatus.COMPENSATED
    assert level(world, "A").reserved == 0


def test_a_late_success_ends_what_waits_for_an_operator() -> None:
    world = stories.stuck()
    world.gateway.mend()
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    assert world.history("saga", "o-1")[-2:] == ["SagaStepCompensated", "SagaCompensated"]
    payment = world.states("payment", PaymentState)["o-1"]
    assert payment.captured == payment.refunded == 300


def test_an_operator_tries_again_or_puts_it_right_by_hand() -> None:
    assert stories.retried().saga("o-1").status is SagaStatus.COMPENSATED
    saga = stories.resolved().saga("o-1")
    assert (saga.status, saga.resolved_by) == (SagaStatus.COMPENSATED, "ann")


def test_an_operator_takes_back_a_completed_order_the_last_step_first() -> None:
    world = stories.taken_back()
    saga = world.saga("o-1")
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.undone == ("createOrder", "processPayment", "reserveInventory")
    assert world.states("order", OrderState)["o-1"].status is OrderStatus.CANCELLED
    assert world.states("payment", PaymentState)["o-1"].status is PaymentStatus.REFUNDED
    assert level(world, "B").reserved == 0


@pytest.mark.parametrize("kind", ["RetrySaga", "ResolveSaga"])
def test_a_saga_that_has_ended_is_neither_retried_nor_resolved(kind: str) -> None:
    world = stories.placed()
    data = {"by": "ann"} | ({"note": "x"} if kind == "ResolveSaga" else {})
    world.send(command("o-1", kind, **data))
    drain(world)
    outcomes = [r for r in world.log if r.topic == TOPICS.outcomes("saga")]
    assert decode_outcome(outcomes[-1].value or b"").code is Code.INVALID_TRANSITION


def decided(saga_id: str, given: StartSaga | CompensateSaga) -> Decision:
    return SAGA.decide(Loaded(None, {}, saga_id), given)


def start(saga: str = "create_order", **changes: object) -> StartSaga:
    return StartSaga(saga=saga, input={**order(), **changes})


def test_an_operator_has_asked_anew_also_what_was_refused_under_the_last_id() -> None:
    assert marks.ask_again("-+=yA ") == "-+=ZA "
    assert marks.ask_anew("-+=yA ") == "A+=ZA "
    assert marks.can_be_put_off("Y")
    assert not marks.can_be_put_off("Z")


def test_what_cannot_start_is_refused_with_the_field() -> None:
    refused = decided("o-1", start("creat_order"))
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.field) == (Code.UNKNOWN_SAGA, "saga")
    refused = decided("o-1", start(currency="gbp"))
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.field) == (Code.INVALID_DATA, "input.currency")
    refused = decided("o" * 97, start())
    assert isinstance(refused, Rejection)
    assert refused.code is Code.INVALID_KEY


def test_the_same_start_again_changes_nothing_and_another_is_refused() -> None:
    loaded = Loaded(stories.placed().saga("o-1"), {}, "o-1")
    assert SAGA.decide(loaded, start()) == ()
    refused = SAGA.decide(loaded, start(user_id="bob"))
    assert isinstance(refused, Rejection)
    assert refused.code is Code.SAGA_ALREADY_EXISTS


def test_a_part_is_barred_before_it_begins() -> None:
    bar = CompensateSaga(by="orders", reason="late", saga="inventory.reserve")
    events = decided("o-1:inventory", bar)
    assert isinstance(events, tuple)
    assert [type(event) for event in events] == [SagaStarted, SagaFailed]
    nothing = decided("o-1", CompensateSaga(by="ann", reason="x"))
    assert isinstance(nothing, Rejection)
    assert nothing.code is Code.SAGA_NOT_FOUND


def test_a_choreographed_order_is_placed_by_four_processes() -> None:
    world = shop()
    world.place("o-1", **order(), coordination="choreography")
    drain(world)
    for suffix in ("", ":user", ":inventory", ":payment"):
        assert world.saga(f"o-1{suffix}").status is SagaStatus.COMPLETED
    assert world.states("order", OrderState)["o-1"].status is OrderStatus.CONFIRMED


def test_a_choreographed_order_that_is_declined_is_undone_by_each_service_itself() -> None:
    world = shop()
    world.place("o-1", **order("tok_decline"), coordination="choreography")
    drain(world)
    saga = world.saga("o-1")
    assert (saga.status, saga.code, saga.undone) == (
        SagaStatus.COMPENSATED,
        "payment_declined",
        ("reserveInventory",),
    )
    assert world.saga("o-1:inventory").status is SagaStatus.COMPENSATED
    assert level(world, "A").reserved == 0
    assert not world.states("order", OrderState)


@pytest.mark.parametrize(
    "text", ["", "x", "x/", "/1", "x/-1", "x/1x", "x/1AB", "x/A", "x/1234567", "x/\u0661"]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert parse_token(text) is None


@pytest.mark.parametrize(
    "token", [Token("a", 0), Token("a b", 12, undo=True), Token("a", 3, undo=True, mark="B")]
)
def test_a_token_is_read_as_it_is_written(token: Token) -> None:
    assert parse_token(str(token)) == token
