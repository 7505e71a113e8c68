"""The pipeline in memory does all that can be done, in order, and no more than that."""

from __future__ import annotations

from typing import Final

from orderflow.memory_pipeline import MemoryPipeline
from orderflow.placing import order_command
from schemas.saga import SagaStatus
from tests.support.commanding import command

NOON_MS: Final = 1_700_000_000_000
MINUTE_MS: Final = 60_000


def ordered(token: str) -> MemoryPipeline:
    """A pipeline with an order, paid with this token, and all done that can be done at once."""
    pipeline = MemoryPipeline(NOON_MS)
    pipeline.send(command("ada", "RegisterUser", name="Ada"))
    pipeline.send(command("A", "RegisterItem", description="item", opening_stock=5))
    line = {"sku": "A", "quantity": 2, "unit_price": 100}
    order = order_command("o-1", user_id="ada", currency="GBP", lines=[line], payment_token=token)
    pipeline.send(order)
    pipeline.settle()
    return pipeline


def test_it_settles_with_nothing_left_to_do() -> None:
    pipeline = ordered("tok_approve")

    assert pipeline.busy() == []
    assert pipeline.saga("o-1").status is SagaStatus.COMPLETED
    assert pipeline.history("order", "o-1") == ["OrderCreated", "OrderConfirmed"]


def test_a_gateway_that_does_not_answer_is_asked_once_and_keeps_its_task() -> None:
    pipeline = ordered("tok_down")

    assert pipeline.busy() == [("ask", b"o-1")]
    assert pipeline.saga("o-1").status is SagaStatus.RUNNING


def test_a_refund_that_waits_behind_a_mute_charge_is_done_in_the_same_go() -> None:
    pipeline = ordered("tok_down")
    while "PaymentRefundRequested" not in pipeline.history("payment", "o-1"):
        pipeline.tick(MINUTE_MS)
        pipeline.settle()

    assert pipeline.busy() == []
    assert pipeline.history("payment", "o-1")[-1] == "PaymentFailed"


def test_listeners_are_told_every_record_in_the_order_of_the_log() -> None:
    pipeline = MemoryPipeline(NOON_MS)
    told: list[object] = []
    pipeline.listeners.append(told.append)
    pipeline.send(command("ada", "RegisterUser", name="Ada"))
    pipeline.settle()

    assert told == pipeline.log
    assert len(told) == 3  # event with state, event for the history, outcome
