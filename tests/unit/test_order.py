"""Orders: created with a total, then moved along the table."""

from itertools import product

import msgspec
import pytest
from pydantic import ValidationError

from commands.aggregate import Command
from commands.order import (
    MAX_LINES,
    CancelOrder,
    ConfirmOrder,
    CreateOrder,
    DeliverOrder,
    Line,
    ShipOrder,
)
from schemas.money import MAX_AMOUNT, MAX_QUANTITY, MAX_UNIT_PRICE
from schemas.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderDelivered,
    OrderEvent,
    OrderLine,
    OrderShipped,
    OrderState,
    OrderStatus,
)
from schemas.rejections import Code, Rejection
from tests.support.decisions import given

LINES = (OrderLine("cup", 3, 250), OrderLine("pot", 1, 1_999))
CREATED = OrderCreated("u-1", "EUR", LINES, 2_749)
CREATE = CreateOrder(
    user_id="u-1",
    currency="EUR",
    lines=(
        Line(sku="cup", quantity=3, unit_price=250),
        Line(sku="pot", quantity=1, unit_price=1_999),
    ),
)

PASTS: dict[OrderStatus, list[OrderEvent]] = {
    OrderStatus.CREATED: [CREATED],
    OrderStatus.CONFIRMED: [CREATED, OrderConfirmed()],
    OrderStatus.SHIPPED: [CREATED, OrderConfirmed(), OrderShipped("T-1")],
    OrderStatus.DELIVERED: [CREATED, OrderConfirmed(), OrderShipped("T-1"), OrderDelivered()],
    OrderStatus.CANCELLED: [CREATED, OrderCancelled("x")],
}
STEPS: dict[OrderStatus, tuple[Command, OrderEvent]] = {
    OrderStatus.CONFIRMED: (ConfirmOrder(), OrderConfirmed()),
    OrderStatus.SHIPPED: (ShipOrder(tracking="T-1"), OrderShipped("T-1")),
    OrderStatus.DELIVERED: (DeliverOrder(), OrderDelivered()),
    OrderStatus.CANCELLED: (CancelOrder(reason="too late"), OrderCancelled("too late")),
}
ALLOWED = {"created confirmed", "created cancelled", "confirmed shipped", "confirmed cancelled"}
ALLOWED |= {"shipped delivered"}


def test_an_order_is_created_with_its_total() -> None:
    given([]).when(CREATE).then([CREATED]).then_state(
        OrderState(OrderStatus.CREATED, "u-1", "EUR", LINES, 2_749, 1, 1)
    )


def test_an_order_whose_stock_and_payment_are_certain_is_created_and_confirmed_at_once() -> None:
    command = CREATE.model_copy(update={"confirm": True})
    given([]).when(command).then([CREATED, OrderConfirmed()]).then_state(
        OrderState(OrderStatus.CONFIRMED, "u-1", "EUR", LINES, 2_749, 1, 2)
    )


def test_an_order_is_not_created_twice() -> None:
    given(PASTS[OrderStatus.SHIPPED]).when(CREATE).then_rejected(
        Code.ORDER_ALREADY_EXISTS, "an order with this id exists already, and is shipped"
    )


@pytest.mark.parametrize(("start", "end"), list(product(PASTS, STEPS)))
def test_an_order_moves_along_the_table_and_no_other_way(
    start: OrderStatus, end: OrderStatus
) -> None:
    command, event = STEPS[end]
    decided = given(PASTS[start]).when(command)
    if f"{start} {end}" in ALLOWED:
        now = len(PASTS[start]) + 1
        decided.then([event]).then_state(OrderState(end, "u-1", "EUR", LINES, 2_749, 1, now))
    else:
        assert isinstance(decided.decision, Rejection)
        assert decided.decision.code is Code.INVALID_TRANSITION
        assert f"the order is {start} and cannot become {end}, " in decided.decision.message


def test_a_refused_move_says_which_moves_there_are() -> None:
    given(PASTS[OrderStatus.CREATED]).when(ShipOrder()).then_rejected(
        Code.INVALID_TRANSITION,
        "the order is created and cannot become shipped, only confirmed or cancelled",
    )
    given(PASTS[OrderStatus.DELIVERED]).when(CancelOrder(reason="x")).then_rejected(
        Code.INVALID_TRANSITION,
        "the order is delivered and cannot become cancelled, and that is final",
    )


@pytest.mark.parametrize("step", list(STEPS.values()), ids=list(STEPS))
def test_an_order_that_does_not_exist_cannot_move(step: tuple[Command, OrderEvent]) -> None:
    given([]).when(step[0]).then_rejected(Code.ORDER_NOT_FOUND, "no order has this id")


def order_of(*totals: int) -> CreateOrder:
    """An order with one line for each total, all of them below the largest line."""
    priced = [divmod(total, MAX_UNIT_PRICE) for total in totals]
    lines = [
        Line(sku="gold", quantity=quantity, unit_price=MAX_UNIT_PRICE)
        for quantity, _ in priced
        if quantity
    ]
    lines += [Line(sku="dust", quantity=1, unit_price=rest) for _, rest in priced if rest]
    return CreateOrder(user_id="u-1", currency="EUR", lines=tuple(lines))


def test_a_total_of_the_largest_exact_number_is_taken_and_one_more_is_not() -> None:
    largest_line = MAX_QUANTITY * MAX_UNIT_PRICE
    rest = MAX_AMOUNT - 9 * largest_line
    decided = given([]).when(order_of(*[largest_line] * 9, rest))
    assert decided.state.root.total == MAX_AMOUNT
    given([]).when(order_of(*[largest_line] * 9, rest + 1)).then_rejected(
        Code.ORDER_TOTAL_TOO_LARGE,
        f"the lines add up to {MAX_AMOUNT + 1} EUR minor units, above {MAX_AMOUNT}",
        "lines",
    )


def test_an_order_of_gifts_costs_nothing() -> None:
    gift = (Line(sku="cup", quantity=1, unit_price=0),)
    decided = given([]).when(CreateOrder(user_id="u-1", currency="EUR", lines=gift))
    assert decided.state.root.total == 0


def json_order(lines: str) -> str:
    return f'{{"user_id": "u-1", "currency": "EUR", "lines": [{lines}]}}'


def test_json_arrays_are_lines() -> None:
    lines = (
        '{"sku": "cup", "quantity": 3, "unit_price": 250},'
        '{"sku": "pot", "quantity": 1, "unit_price": 1999}'
    )
    assert CreateOrder.model_validate_json(json_order(lines)) == CREATE


@pytest.mark.parametrize(
    "line",
    [
        '{"sku": "cup", "quantity": 3}',
        '{"sku": "cup", "quantity": 0, "unit_price": 1}',
        '{"sku": "cup", "quantity": 1.0, "unit_price": 1}',
        '{"sku": "cup", "quantity": "1", "unit_price": 1}',
        '{"sku": "cup", "quantity": 1, "unit_price": -1}',
        '{"sku": "cup/1", "quantity": 1, "unit_price": 1}',
        '{"sku": "cup", "quantity": 1, "unit_price": 1, "colour": "red"}',
    ],
)
def test_a_line_that_is_not_exactly_right_is_refused(line: str) -> None:
    with pytest.raises(ValidationError, match=r"lines\.0\."):
        CreateOrder.model_validate_json(json_order(line))


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_an_order_has_1_to_1000_lines(count: int, fits: bool) -> None:
    body = json_order(",".join(['{"sku": "cup", "quantity": 1, "unit_price": 1}'] * count))
    if fits:
        assert len(CreateOrder.model_validate_json(body).lines) == count <= MAX_LINES
    else:
        with pytest.raises(ValidationError, match="lines"):
            CreateOrder.model_validate_json(body)


def test_only_its_maker_may_say_that_an_order_is_its_to_cancel() -> None:
    mine = CancelOrder(reason="x", only_if_made_by="o-1.5c0pe")
    made = msgspec.structs.replace(CREATED, made_by="o-1.5c0pe")
    given([made]).when(mine).then([OrderCancelled("x")])
    given([made]).when(CancelOrder(reason="x")).then([OrderCancelled("x")])
    for past in ([CREATED], [msgspec.structs.replace(CREATED, made_by="o-1.other")]):
        given(past).when(mine).then_rejected(
            Code.MADE_BY_ANOTHER,
            "the order was not made by o-1.5c0pe, so it is not touched",
            "only_if_made_by",
        )
