"""Stock of one SKU: events and state on the wire. Key: SKU; of an open reservation:
``SKU/reservation id``.

Laws, at every version: ``on_hand = received + adjusted - shipped`` and ``available = on_hand -
reserved >= 0``.
"""

from typing import Final

import msgspec


class ItemRegistered(msgspec.Struct, frozen=True):
    """The SKU exists from here on, with nothing on hand. At or below the threshold its stock is low."""

    description: str
    low_stock_threshold: int


class StockReceived(msgspec.Struct, frozen=True):
    """Goods came in: a delivery, or a return by a customer."""

    quantity: int
    reference: str | None = None


class StockAdjusted(msgspec.Struct, frozen=True):
    """A count or a write-off: ``delta`` pieces more, or fewer where it is negative."""

    delta: int
    reason: str


class StockReserved(msgspec.Struct, frozen=True):
    """``quantity`` pieces are held back for one reservation, which most often is an order. ``made_by``:
    who alone may release it (commands/ownership.py).
    """

    reservation_id: str
    quantity: int
    made_by: str | None = None


class ReservationReleased(msgspec.Struct, frozen=True):
    """The pieces are available again; the reservation is gone."""

    reservation_id: str
    quantity: int


class ReservationCommitted(msgspec.Struct, frozen=True):
    """The pieces have left the stock; the reservation is gone."""

    reservation_id: str
    quantity: int


InventoryEvent = (
    ItemRegistered
    | StockReceived
    | StockAdjusted
    | StockReserved
    | ReservationReleased
    | ReservationCommitted
)


class StockLevel(msgspec.Struct, frozen=True):
    """The SKU after an event; pieces. ``received``, ``adjusted``, ``shipped`` are sums over its
    whole life.
    """

    description: str
    low_stock_threshold: int
    on_hand: int
    reserved: int
    received: int
    adjusted: int
    shipped: int
    updated_at_ms: int

    @property
    def available(self) -> int:
        """What can still be reserved."""
        return self.on_hand - self.reserved


class Reservation(msgspec.Struct, frozen=True):
    """An open reservation: a part of its SKU with a record of its own, deleted when it is closed."""

    reservation_id: str
    quantity: int
    reserved_at_ms: int
    made_by: str | None = None


EVENTS: Final[tuple[type[InventoryEvent], ...]] = (
    ItemRegistered,
    StockReceived,
    StockAdjusted,
    StockReserved,
    ReservationReleased,
    ReservationCommitted,
)
