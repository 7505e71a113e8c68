"""Whose is it? Strangers under an order's ids, and ids that clients and the pipeline might share."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from commands.payment import RequestPayment
from orderflow.memory_pipeline import SCOPE
from sagas import react
from sagas.choreography import PARTS, PATIENCE, Part
from sagas.evolve import evolve
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState, PaymentStatus
from schemas.records import encode
from schemas.saga import SagaStarted, SagaState, SagaStatus, SagaStepStarted, StepStatus
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.saga_laws import check_laws, drifts
from tests.support.saga_stories import drain, order, settle, shop
from tests.support.sagas import COORDINATIONS
from tests.support.world import TOPICS, World

of_both = pytest.mark.parametrize("coordination", COORDINATIONS)
LINES = [{"sku": "C", "quantity": 1, "unit_price": 1}]
THEIRS: dict[str, Any] = {
    "CreateOrder": {"user_id": "ada", "currency": "GBP", "lines": LINES, "confirm": True},
    "RequestPayment": {"order_id": "x", "amount": 7, "currency": "GBP"},
}


def deaf_to(world: World, aggregate: str) -> None:
    """Lets time pass until a saga has given a step up, while the processor of an aggregate is down."""
    for _ in range(40):
        while busy := [i for i in world.busy() if i[0] != "deliver" or i[1][0] != aggregate]:
            world.do(*busy[0])
        world.tick(60_000)


@of_both
def test_a_step_that_timed_out_undoes_no_order_of_somebody_else(coordination: Any) -> None:
    world = shop()
    world.send(command("o-1", "CreateOrder", **THEIRS["CreateOrder"]))
    settle(world)
    world.place("o-1", **order(), coordination=coordination)
    deaf_to(world, "order")
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    theirs = world.states("order", OrderState)["o-1"]
    assert theirs.status is OrderStatus.CONFIRMED
    check_laws(world)


@of_both
def test_a_step_that_timed_out_refunds_no_payment_of_somebody_else(coordination: Any) -> None:
    world = shop()
    world.send(command("o-1", "RequestPayment", **THEIRS["RequestPayment"]))
    world.send(command("o-1", "CapturePayment"))
    settle(world)
    world.place("o-1", **order(), coordination=coordination)
    deaf_to(world, "payment")
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    assert world.states("payment", PaymentState)["o-1"].status is PaymentStatus.CAPTURED
    check_laws(world)


@of_both
def test_a_step_that_timed_out_releases_no_reservation_of_somebody_else(coordination: Any) -> None:
    world = shop()
    world.send(command("A", "ReserveStock", reservation_id="o-1", quantity=3))
    settle(world)
    world.place("o-1", **order(), coordination=coordination)
    deaf_to(world, "inventory")
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    check_laws(world)


def place_where_a_stranger_is(world: World, suffix: str) -> None:
    """Place an order of which a part would have a stranger's id: it hears at once, the stranger never."""
    world.place("o-1", **order(), coordination="choreography")
    settle(world)  # at once, without a timeout
    assert world.saga("o-1").status in (SagaStatus.FAILED, SagaStatus.COMPENSATED)
    assert world.saga("o-1").code == "saga_already_exists"
    drain(world)
    assert world.saga(f"o-1{suffix}").status is SagaStatus.COMPLETED


@of_both
@pytest.mark.parametrize("suffix", [":user", ":inventory", ":payment"])
def test_an_order_whose_parts_id_is_a_strangers_order_fails_and_leaves_it_alone(
    coordination: Any, suffix: str
) -> None:
    world = shop()
    world.place(f"o-1{suffix}", **order(C=1), coordination=coordination)
    drain(world)
    place_where_a_stranger_is(world, suffix)
    check_laws(world)


def begin_part(world: World, part: Part, **theirs: Any) -> None:
    """A stranger begins a part of `o-1`, without its signature."""
    world.send(command(f"o-1{part.suffix}", "StartSaga", saga=part.saga, input=theirs))


each_part = pytest.mark.parametrize("part", PARTS, ids=[part.saga for part in PARTS])
its_input = pytest.mark.parametrize(
    "theirs", [order(C=2), order()], ids=["other input", "the same input"]
)


@each_part
@its_input
def test_a_strangers_part_of_the_same_kind_is_left_alone_and_the_order_hears_at_once(
    part: Part, theirs: dict[str, Any]
) -> None:
    world = shop()
    begin_part(world, part, **theirs)
    drain(world)
    assert world.saga(f"o-1{part.suffix}").status is SagaStatus.COMPLETED
    place_where_a_stranger_is(world, part.suffix)
    assert not world.gateway.ledger.book().refunds
    check_laws(world)


@each_part
@its_input
def test_a_strangers_part_is_left_alone_by_an_order_that_heard_nothing_of_it_in_time(
    part: Part, theirs: dict[str, Any]
) -> None:
    world, its_id = shop(), f"o-1{part.suffix}"
    begin_part(world, part, **theirs)
    drain(world)
    world.place("o-1", **order(), coordination="choreography")
    while busy := [item for item in world.busy() if item != ("deliver", (SAGA, its_id.encode()))]:
        world.do(*busy[0])
    world.tick(PATIENCE.timeout_ms)
    drain(world)
    assert world.saga("o-1").code == "timed_out"
    assert world.saga(its_id).status is SagaStatus.COMPLETED
    assert "SagaCompensationOrdered" not in world.history(SAGA, its_id)
    check_laws(world)


@each_part
def test_an_order_that_waits_for_its_part_does_not_go_on_with_a_strangers(part: Part) -> None:
    world = shop()
    world.place("o-1", **order("tok_down"), coordination="choreography")
    its_id = f"o-1{part.suffix}"
    while (SAGA, its_id.encode()) not in world.queues:
        world.do(*world.busy()[0])
    ours = world.queues[SAGA, its_id.encode()].popleft()
    begin_part(world, part, **order())
    settle(world)
    assert world.saga(its_id).status is SagaStatus.COMPLETED
    assert world.saga("o-1").steps[-1].status is StepStatus.RUNNING
    world.queues[SAGA, its_id.encode()].append(ours)
    settle(world)
    assert world.saga("o-1").code == "saga_already_exists"
    drain(world)
    check_laws(world)


@each_part
def test_a_strangers_start_of_a_part_that_is_there_keeps_nobody_from_an_order(part: Part) -> None:
    world = shop()
    world.place("o-1", **order(), coordination="choreography")
    while f"o-1{part.suffix}" not in world.states(SAGA, SagaState):
        world.do(*world.busy()[0])
    begin_part(world, part, **order(C=2))
    begin_part(world, part, **order())
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPLETED
    check_laws(world)


def test_verification_holds_a_strangers_part_against_no_order() -> None:
    world = shop()
    begin_part(world, PARTS[-1], **order(C=2))
    drain(world)
    place_where_a_stranger_is(world, PARTS[-1].suffix)
    assert world.states("payment", PaymentState)["o-1"].captured == 200
    assert drifts(world) == []


@pytest.mark.parametrize("steal_timer", [True, False])
def test_a_clients_command_id_does_not_block_the_pipelines_own(steal_timer: bool) -> None:
    world = shop()
    answer = {"token": "nonsense", "type": "X", "accepted": True}
    refund = {"reason": "x", "only_if_made_by": "nobody"}
    if steal_timer:
        for timer in range(1, 5):
            world.send(command("o-1", "RecordAnswer", command_id=f"timer.{timer}", **answer))
    for name in ("capture", "decline", "processPayment.0A"):
        world.send(command("o-1", "RequestRefund", command_id=f"o-1.{name}", **refund))
    settle(world)
    world.place("o-1", **order("tok_down" if steal_timer else "tok_approve"))
    drain(world)
    ended = SagaStatus.COMPENSATED if steal_timer else SagaStatus.COMPLETED
    assert world.saga("o-1").status is ended
    assert not [record for record in world.log if record.topic == TOPICS.dead_letters]


def begun(scope: str | None) -> SagaState:
    lines = order()["lines"]
    given = msgspec.Raw(
        encode({"user_id": "ada", "currency": "GBP", "lines": lines, "payment_token": "tok_x"})
    )
    return evolve(None, SagaStarted("create_order", given, scope=scope), 1)


@pytest.mark.parametrize("scope", [None, SCOPE])
def test_a_saga_of_an_older_release_asks_under_its_old_ids_and_unsigned(scope: str | None) -> None:
    """Asked again under another id, or with other data, a command would be carried out twice, or refused."""
    started = SagaStepStarted("processPayment", 1, 10_000)
    (sent,) = react("o-1", evolve(begun(scope), started, 2), started)
    assert isinstance(sent.send.command, RequestPayment)
    made_by = sent.send.command.made_by
    if scope is None:
        assert (sent.command_id, made_by) == ("o-1.processPayment.0A", None)
    else:
        assert sent.command_id == f"o-1.{scope}.processPayment.0A"
        assert made_by == f"o-1.{scope}"


def test_an_order_that_is_failed_by_hand_while_the_gateway_charges_is_given_its_money_back() -> (
    None
):
    world = shop()
    world.place("o-1", **order())
    while ("ask", b"o-1") not in world.busy():
        world.do(*world.busy()[0])
    world.send(command("o-1", "FailPayment", reason="the customer has called"))
    while any(item[0] != "ask" for item in world.busy()):
        world.do(*next(item for item in world.busy() if item[0] != "ask"))
    settle(world)
    drain(world)
    assert world.saga("o-1").status is SagaStatus.COMPENSATED
    payment = world.states("payment", PaymentState)["o-1"]
    assert (payment.status, payment.captured, payment.refunded) == (
        PaymentStatus.REFUNDED,
        300,
        300,
    )
    check_laws(world)
