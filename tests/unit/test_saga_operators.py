"""What an operator can do about a saga: try again, take back, put right by hand; and when not."""

from __future__ import annotations

import pytest

from schemas.payment import PaymentState, PaymentStatus
from schemas.rejections import Code
from schemas.saga import SagaStatus
from tests.support import saga_stories as stories
from tests.support.commanding import command
from tests.support.saga_faults import (
    LONGEST_MS,
    TIMEOUT_MS,
    asked,
    failing,
    reserved,
    settle_but,
    unreleased,
)
from tests.support.saga_laws import check_laws
from tests.support.saga_stories import drain, last_outcome, order, settle, shop

STANDS_IN_THE_WAY = {
    "tok_approve": {"CapturePayment", "RefundPayment"},
    "tok_down": {"FailPayment"},
}
"""Of the way back: what the gateway says of money that was charged, and of money that was not."""


def test_an_operator_has_it_undone_under_a_new_id() -> None:
    world = unreleased()
    world.refusing.clear()
    world.send(command("o-1", "RetrySaga", by="ann"))
    settle(world)
    assert asked(world, "inventory")[-1] == "undo-reserveInventory.0G"
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    assert not reserved(world)


def test_what_was_refused_after_it_was_given_up_is_asked_under_a_new_id_too() -> None:
    world = failing("ReleaseReservation", "tok_decline")
    for _ in range(4):
        world.tick(LONGEST_MS)
        settle(world)
    for marks in ("F", "F"):  # asked for the last time, and given up without an answer
        world.tick(LONGEST_MS)
        settle_but(world, "inventory")
        assert world.saga("o-1").steps[1].undo_answers == marks
    assert world.saga("o-1").status is SagaStatus.NEEDS_OPERATOR
    settle(world)  # refused, too late
    assert world.saga("o-1").steps[1].undo_answers == "f"
    assert world.saga("o-1").wakes_at_ms is None
    world.refusing = set()
    world.send(command("o-1", "RetrySaga", by="ann"))
    settle(world)
    assert asked(world, "inventory")[-1] == "undo-reserveInventory.0G"
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    assert not reserved(world)


def test_after_the_last_id_the_first_is_asked_again() -> None:
    world = unreleased()
    first = "undo-reserveInventory.0A"
    for _ in range(4):
        assert asked(world, "inventory").count(first) == 1
        world.send(command("o-1", "RetrySaga", by="ann"))
        drain(world)
    assert asked(world, "inventory").count(first) == 2
    assert world.saga("o-1").status is SagaStatus.NEEDS_OPERATOR


def test_a_late_success_counts_also_while_another_step_is_undone_again() -> None:
    world = shop()
    world.place("o-1", **order("tok_refund_down"))
    settle(world)
    world.refusing = {"CancelOrder"}
    world.send(command("o-1", "CompensateSaga", by="ann", reason="x"))
    drain(world)
    assert world.saga("o-1").status is SagaStatus.NEEDS_OPERATOR
    world.refusing = set()
    world.gateway.mend()
    world.send(command("o-1", "RetrySaga", by="ann"))
    settle_but(world, "order")  # the refund arrives before the order is cancelled
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    check_laws(world)


def test_an_operator_asks_again_at_once_with_all_attempts_left() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    world.tick(TIMEOUT_MS)
    settle(world)
    assert world.saga("o-1").steps[2].attempt == 2
    world.gateway.mend()
    world.send(command("o-1", "RetrySaga", by="ann", note="it works again"))
    settle_but(world, "payment")
    assert world.saga("o-1").steps[2].attempt == 1
    settle(world)
    assert world.saga("o-1").status is SagaStatus.COMPLETED


def test_an_operator_orders_a_running_saga_back() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    world.send(command("o-1", "CompensateSaga", by="ann", reason="no more", code="called"))
    settle(world)
    saga = world.saga("o-1")
    assert (saga.status, saga.code, saga.message) == (SagaStatus.COMPENSATED, "called", "no more")
    assert saga.undone == ("processPayment", "reserveInventory")
    check_laws(world)


def test_what_was_put_right_by_hand_and_is_undone_after_all_has_ended_once() -> None:
    world = stories.resolved()
    world.gateway.mend()
    drain(world)
    assert world.history("saga", "o-1")[-2:] == ["SagaResolved", "SagaStepCompensated"]
    assert world.saga("o-1").status is SagaStatus.COMPENSATED


def test_what_is_undone_already_is_not_ordered_back() -> None:
    world = stories.declined()
    before = world.saga("o-1")
    world.send(command("o-1", "CompensateSaga", by="ann", reason="x"))
    settle(world)
    assert last_outcome(world).code is None
    assert world.saga("o-1") == before


def test_what_could_not_be_undone_is_not_ordered_back() -> None:
    world = stories.stuck()
    world.send(command("o-1", "CompensateSaga", by="ann", reason="x"))
    settle(world)
    assert last_outcome(world).code is Code.INVALID_TRANSITION


@pytest.mark.parametrize("kind", ["RetrySaga", "CompensateSaga", "ResolveSaga"])
def test_an_operator_is_told_that_there_is_no_such_saga(kind: str) -> None:
    more = {"CompensateSaga": {"reason": "x"}, "ResolveSaga": {"note": "x"}}.get(kind, {})
    world = shop()
    world.send(command("o-1", kind, by="ann", **more))
    settle(world)
    assert last_outcome(world).code is Code.SAGA_NOT_FOUND


def test_only_what_waits_for_an_operator_can_be_put_right_by_hand() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    world.send(command("o-1", "ResolveSaga", by="ann", note="x"))
    settle(world)
    assert last_outcome(world).code is Code.INVALID_TRANSITION
    assert world.saga("o-1").status is SagaStatus.RUNNING


@pytest.mark.parametrize("bug", ["CapturePayment", "RefundPayment", "FailPayment"])
@pytest.mark.parametrize("token", ["tok_approve", "tok_down"])
def test_money_that_a_bug_holds_up_is_not_said_to_have_gone_back(bug: str, token: str) -> None:
    world = shop()
    world.refusing = {bug, "CreateOrder"}
    world.place("o-1", **order(token))
    drain(world)
    ended = {PaymentStatus.REFUNDED, PaymentStatus.FAILED}
    there_is_more_to_do = world.states("payment", PaymentState)["o-1"].status not in ended
    assert there_is_more_to_do == (world.saga("o-1").status is SagaStatus.NEEDS_OPERATOR)
    assert there_is_more_to_do == (bug in STANDS_IN_THE_WAY[token])
    world.refusing = set()
    world.send(command("o-1", "RetrySaga", by="ann"))
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    assert world.states("payment", PaymentState)["o-1"].status in ended
    check_laws(world)
