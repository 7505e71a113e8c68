"""An order, from creation to delivery or cancellation.

Imported through the table in commands/__init__.py. Laws: the status moves along ``MOVES`` and no
other way; lines and total never change once the order is created; ``total`` is the sum of quantity
times unit price and at most ``MAX_AMOUNT``.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from pydantic import BaseModel, Field

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.ownership import Maker, OnlyMaker, refuse_another
from commands.text import Text
from schemas.ids import Id
from schemas.money import MAX_AMOUNT, Currency, Quantity, UnitPrice
from schemas.order import (
    EVENTS,
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

MAX_LINES: Final = 1_000

MOVES: Final[Mapping[OrderStatus, tuple[OrderStatus, ...]]] = {
    OrderStatus.CREATED: (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
    OrderStatus.CONFIRMED: (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
    OrderStatus.SHIPPED: (OrderStatus.DELIVERED,),
    OrderStatus.DELIVERED: (),
    OrderStatus.CANCELLED: (),
}
"""From each status, where an order can go. Every move stands here and nowhere else."""

LEADS_TO: Final[Mapping[type[OrderEvent], OrderStatus]] = {
    OrderCreated: OrderStatus.CREATED,
    OrderConfirmed: OrderStatus.CONFIRMED,
    OrderShipped: OrderStatus.SHIPPED,
    OrderDelivered: OrderStatus.DELIVERED,
    OrderCancelled: OrderStatus.CANCELLED,
}
"""Where an order stands after each event."""


class Line(BaseModel):
    """One line of a new order. A SKU may stand on several: one at full price, one as a gift."""

    model_config = Command.model_config

    sku: Id = Field(description="What is ordered.")
    quantity: Quantity = Field(description="How many pieces.")
    unit_price: UnitPrice = Field(description="Price of one piece in minor units; 0 is a gift.")


class CreateOrder(Command):
    """A user orders; the order id is the record key."""

    user_id: Id = Field(description="Who orders.")
    currency: Currency = Field(description="Currency of all prices, ISO 4217.")
    lines: tuple[Line, ...] = Field(
        min_length=1, max_length=MAX_LINES, description="What is ordered, 1 to 1,000 lines."
    )
    confirm: bool = Field(
        default=False,
        description="Stock and payment are certain already: the order is confirmed at once.",
    )
    made_by: Maker = None


class ConfirmOrder(Command):
    """Stock and payment are certain."""


class CancelOrder(Command):
    """The order will not be fulfilled."""

    reason: Text = Field(description="Why, in words for people.")
    only_if_made_by: OnlyMaker = None


class ShipOrder(Command):
    """The goods are on their way."""

    tracking: Text | None = Field(default=None, description="The carrier's number.")


class DeliverOrder(Command):
    """The goods have arrived."""


OrderCommand = CreateOrder | ConfirmOrder | CancelOrder | ShipOrder | DeliverOrder


def decide(loaded: Loaded, command: OrderCommand) -> Decision:
    """What follows from the command, or why nothing does."""
    order: OrderState | None = loaded.root
    match command:
        case CreateOrder():
            return _create(order, command)
        case ConfirmOrder():
            return _move(order, OrderConfirmed())
        case ShipOrder():
            return _move(order, OrderShipped(command.tracking))
        case DeliverOrder():
            return _move(order, OrderDelivered())
        case CancelOrder():
            return _cancel(order, command)
        case _:
            assert_never(command)


def _create(order: OrderState | None, command: CreateOrder) -> Decision:
    if order is not None:
        return Rejection(
            Code.ORDER_ALREADY_EXISTS,
            f"an order with this id exists already, and is {order.status}",
        )
    total = sum([line.quantity * line.unit_price for line in command.lines])
    if total > MAX_AMOUNT:
        message = f"the lines add up to {total} {command.currency} minor units, above {MAX_AMOUNT}"
        return Rejection(Code.ORDER_TOTAL_TOO_LARGE, message, "lines")
    lines = tuple([OrderLine(line.sku, line.quantity, line.unit_price) for line in command.lines])
    created = OrderCreated(command.user_id, command.currency, lines, total, command.made_by)
    return (created, OrderConfirmed()) if command.confirm else (created,)


def _cancel(order: OrderState | None, command: CancelOrder) -> Decision:
    if order is not None:
        refusal = refuse_another("the order", order.made_by, command.only_if_made_by)
        if refusal is not None:
            return refusal
    return _move(order, OrderCancelled(command.reason))


def _move(order: OrderState | None, event: OrderEvent) -> Decision:
    """The event, if the table allows the move that it makes."""
    if order is None:
        return Rejection(Code.ORDER_NOT_FOUND, "no order has this id")
    to = LEADS_TO[type(event)]
    allowed = MOVES[order.status]
    if to in allowed:
        return (event,)
    instead = f"only {' or '.join(allowed)}" if allowed else "and that is final"
    message = f"the order is {order.status} and cannot become {to}, {instead}"
    return Rejection(Code.INVALID_TRANSITION, message)


def evolve(loaded: Loaded, event: OrderEvent, at_ms: int) -> Loaded:
    """The order after the event."""
    status = LEADS_TO[type(event)]
    if isinstance(event, OrderCreated):
        return Loaded(_state(status, event, at_ms, at_ms))
    order: OrderState = loaded.root
    return Loaded(_state(status, order, order.created_at_ms, at_ms))


def _state(
    status: OrderStatus, ordered: OrderCreated | OrderState, created_at_ms: int, at_ms: int
) -> OrderState:
    """What was ordered, under another status."""
    return OrderState(
        status,
        ordered.user_id,
        ordered.currency,
        ordered.lines,
        ordered.total,
        created_at_ms,
        at_ms,
        ordered.made_by,
    )


ORDER: Final = Aggregate(
    name="order",
    commands=(CreateOrder, ConfirmOrder, CancelOrder, ShipOrder, DeliverOrder),
    events=EVENTS,
    root_type=OrderState,
    decide=decide,
    evolve=evolve,
)
