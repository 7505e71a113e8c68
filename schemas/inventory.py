"""Stock of one SKU: events and state on the wire. Key: SKU; of an open reservation:
``SKU/reservation id``.

Laws, at every version: ``on_hand = received + adjusted - shipped`` and ``available = on_hand -
reserved >= 0``.
"""

from typing import Final

import msgspec

from schemas.decoding import Int64


class ItemRegistered(msgspec.Struct, frozen=True):
    """The SKU exists from here on, with nothing on hand. At or below the threshold its stock is low."""

    description: str
    low_stock_threshold: Int64


class StockReceived(msgspec.Struct, frozen=True):
    """Goods came in: a delivery, or a return by a customer."""

    quantity: Int64
    reference: str | None = None


class StockAdjusted(msgspec.Struct, frozen=True):
    """A count or a write-off: ``delta`` pieces more, or fewer where it is negative."""

    delta: Int64
    reason: str


class StockReserved(msgspec.Struct, frozen=True):
    """``quantity`` pieces are held back for one reservation, which most often is an order. ``made_by``:
    who alone may release it (commands/ownership.py).
    """

    reservation_id: str
    quantity: Int64
    made_by: str | None = None


class ReservationReleased(msgspec.Struct, frozen=True):
    """The pieces are available again; the reservation is gone."""

    reservation_id: str
    quantity: Int64


class ReservationCommitted(msgspec.Struct, frozen=True):
    """The pieces have left the stock; the reservation is gone."""

    reservation_id: str
    quantity: Int64


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
    low_stock_threshold: Int64
    on_hand: Int64
    reserved: Int64
    received: Int64
    adjusted: Int64
    shipped: Int64
    updated_at_ms: Int64

    @property
    def available(self) -> int:
        """What can still be reserved."""
        return self.on_hand - self.reserved


class Reservation(msgspec.Struct, frozen=True):
    """An open reservation: a part of its SKU with a record of its own, deleted when it is closed."""

    reservation_id: str
    quantity: Int64
    reserved_at_ms: Int64
    made_by: str | None = None


EVENTS: Final[tuple[type[InventoryEvent], ...]] = (
    ItemRegistered,
    StockReceived,
    StockAdjusted,
    StockReserved,
    ReservationReleased,
    ReservationCommitted,
)
