"""An order: events and state on the wire. Key: order id."""

from enum import StrEnum
from typing import Final

import msgspec

from schemas.decoding import Int64


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """``quantity`` pieces of ``sku`` at ``unit_price`` minor units each."""

    sku: str
    quantity: Int64
    unit_price: Int64


class OrderCreated(msgspec.Struct, frozen=True):
    """A user ordered; ``total`` is the sum over the lines in minor units of ``currency``. ``made_by``:
    who alone may undo it (commands/ownership.py).
    """

    user_id: str
    currency: str
    lines: tuple[OrderLine, ...]
    total: Int64
    made_by: str | None = None


class OrderConfirmed(msgspec.Struct, frozen=True):
    """Stock and payment are certain."""


class OrderCancelled(msgspec.Struct, frozen=True):
    """The order will not be fulfilled."""

    reason: str


class OrderShipped(msgspec.Struct, frozen=True):
    """The goods are on their way."""

    tracking: str | None = None


class OrderDelivered(msgspec.Struct, frozen=True):
    """The goods have arrived."""


OrderEvent = OrderCreated | OrderConfirmed | OrderCancelled | OrderShipped | OrderDelivered


class OrderStatus(StrEnum):
    """Where an order stands; commands/order.py has the table of moves."""

    CREATED = "created"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    SHIPPED = "shipped"
    DELIVERED = "delivered"


class OrderState(msgspec.Struct, frozen=True, gc=False):
    """The whole order after an event. Its size is fixed by its lines when it is created."""

    status: OrderStatus
    user_id: str
    currency: str
    lines: tuple[OrderLine, ...]
    total: Int64
    created_at_ms: Int64
    updated_at_ms: Int64
    made_by: str | None = None


EVENTS: Final[tuple[type[OrderEvent], ...]] = (
    OrderCreated,
    OrderConfirmed,
    OrderCancelled,
    OrderShipped,
    OrderDelivered,
)
