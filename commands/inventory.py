"""Stock of one SKU, and the reservations on it. Imported through the table in commands/__init__.py.

Laws, at every version: ``on_hand = received + adjusted - shipped``; ``reserved`` is the sum of the
open reservations; ``available = on_hand - reserved >= 0``; no total exceeds ``MAX_AMOUNT``.

A reservation is a part: a record of its own under ``SKU/reservation id``, set to None when it is
closed. It is not remembered after that, so the same reservation id may be opened anew.
"""

from typing import Annotated, Final, assert_never

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.ownership import Maker, OnlyMaker, refuse_another
from commands.text import Text
from schemas.ids import Id
from schemas.inventory import (
    EVENTS,
    InventoryEvent,
    ItemRegistered,
    Reservation,
    ReservationCommitted,
    ReservationReleased,
    StockAdjusted,
    StockLevel,
    StockReceived,
    StockReserved,
)
from schemas.money import MAX_AMOUNT, MAX_QUANTITY, Quantity
from schemas.rejections import Code, Rejection

QuantityOrNone = Annotated[int, Field(ge=0, le=MAX_QUANTITY)]
"""A number of pieces that may be zero."""


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise PydanticCustomError("zero_delta", "An adjustment by 0 pieces changes nothing")
    return delta


Delta = Annotated[
    int,
    Field(ge=-MAX_QUANTITY, le=MAX_QUANTITY, json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_not_zero),
]
"""Pieces more or, where negative, fewer; never zero."""


class RegisterItem(Command):
    """Make the SKU known; the SKU is the record key."""

    description: Text = Field(description="What it is.")
    low_stock_threshold: QuantityOrNone = Field(
        default=10, description="The stock is low when this many pieces or fewer are available."
    )
    opening_stock: QuantityOrNone = Field(
        default=0, description="Pieces that are there from the start, received at once."
    )


class ReceiveStock(Command):
    """Goods came in: a delivery, or a return by a customer."""

    quantity: Quantity = Field(description="Pieces that came in.")
    reference: Text | None = Field(default=None, description="Delivery note, return number.")


class AdjustStock(Command):
    """A count or a write-off found more or fewer pieces than the books say."""

    delta: Delta = Field(description="Pieces more, or fewer where it is negative; not 0.")
    reason: Text = Field(description="Why, in words for people.")


class ReserveStock(Command):
    """Hold pieces back, all or none of them."""

    reservation_id: Id = Field(description="Whom they are held for, most often an order id.")
    quantity: Quantity = Field(description="Pieces to hold back.")
    made_by: Maker = None


class ReleaseReservation(Command):
    """Give the pieces of a reservation back; they are available again."""

    reservation_id: Id = Field(description="The open reservation to give back.")
    only_if_made_by: OnlyMaker = None


class CommitReservation(Command):
    """Take the pieces of a reservation out of the stock for good."""

    reservation_id: Id = Field(description="The open reservation whose pieces leave.")


InventoryCommand = (
    RegisterItem
    | ReceiveStock
    | AdjustStock
    | ReserveStock
    | ReleaseReservation
    | CommitReservation
)


def parts_of(command: InventoryCommand) -> tuple[str, ...]:
    """The reservation that the command touches, if it touches one."""
    match command:
        case (
            ReserveStock(reservation_id=reservation_id)
            | ReleaseReservation(reservation_id=reservation_id)
            | CommitReservation(reservation_id=reservation_id)
        ):
            return (reservation_id,)
        case RegisterItem() | ReceiveStock() | AdjustStock():
            return ()
        case _:
            assert_never(command)


def decide(loaded: Loaded, command: InventoryCommand) -> Decision:
    """What follows from the command, or why nothing does."""
    level: StockLevel | None = loaded.root
    if isinstance(command, RegisterItem):
        return _register(level, command)
    if level is None:
        return Rejection(Code.ITEM_NOT_FOUND, "no item is registered under this SKU")
    match command:
        case ReserveStock(reservation_id=reservation_id):
            return _reserve(level, loaded.parts.get(reservation_id), command)
        case CommitReservation(reservation_id=reservation_id):
            return _commit(level, loaded.parts.get(reservation_id), reservation_id)
        case ReleaseReservation(reservation_id=reservation_id):
            return _release(loaded.parts.get(reservation_id), command)
        case ReceiveStock():
            return _receive(level, command)
        case AdjustStock():
            return _adjust(level, command)
        case _:
            assert_never(command)


def _register(level: StockLevel | None, command: RegisterItem) -> Decision:
    if level is not None:
        return Rejection(
            Code.ITEM_ALREADY_REGISTERED,
            f"an item is registered under this SKU already, with {_pieces(level.on_hand)} on hand",
        )
    registered = ItemRegistered(command.description, command.low_stock_threshold)
    if command.opening_stock == 0:
        return (registered,)
    return (registered, StockReceived(command.opening_stock))


def _receive(level: StockLevel, command: ReceiveStock) -> Decision:
    quantity = command.quantity
    for total, now in (("on hand", level.on_hand), ("ever received", level.received)):
        if now + quantity > MAX_AMOUNT:
            return _over_limit(quantity, total, now, "quantity")
    return (StockReceived(quantity, command.reference),)


def _adjust(level: StockLevel, command: AdjustStock) -> Decision:
    delta = command.delta
    if level.available + delta < 0:
        return _insufficient(f"{_pieces(-delta)} fewer", level, "delta")
    for total, now in (("on hand", level.on_hand), ("ever adjusted", level.adjusted)):
        if now + delta > MAX_AMOUNT:
            return _over_limit(delta, total, now, "delta")
    return (StockAdjusted(delta, command.reason),)


def _reserve(level: StockLevel, open_: Reservation | None, command: ReserveStock) -> Decision:
    if open_ is not None:
        return Rejection(
            Code.RESERVATION_ALREADY_EXISTS,
            f"reservation {open_.reservation_id} is open already, for {_pieces(open_.quantity)}",
            "reservation_id",
        )
    if command.quantity > level.available:
        return _insufficient(_pieces(command.quantity), level, "quantity")
    return (StockReserved(command.reservation_id, command.quantity, command.made_by),)


def _release(open_: Reservation | None, command: ReleaseReservation) -> Decision:
    if open_ is None:
        return _no_reservation(command.reservation_id)
    what = f"reservation {open_.reservation_id}"
    refusal = refuse_another(what, open_.made_by, command.only_if_made_by)
    return refusal or (ReservationReleased(open_.reservation_id, open_.quantity),)


def _commit(level: StockLevel, open_: Reservation | None, reservation_id: str) -> Decision:
    if open_ is None:
        return _no_reservation(reservation_id)
    # Received and adjusted have a limit each, so what was shipped out of both needs one of its own.
    if level.shipped + open_.quantity > MAX_AMOUNT:
        return _over_limit(open_.quantity, "ever shipped", level.shipped, "reservation_id")
    return (ReservationCommitted(reservation_id, open_.quantity),)


def _insufficient(asked: str, level: StockLevel, field: str) -> Rejection:
    message = f"{asked} asked for, but only {level.available} of {level.on_hand} are available"
    return Rejection(Code.INSUFFICIENT_STOCK, message, field)


def _over_limit(more: int, total: str, now: int, field: str) -> Rejection:
    message = f"{_pieces(more)} more would make {now + more} {total}; the limit is {MAX_AMOUNT}"
    return Rejection(Code.STOCK_LIMIT_EXCEEDED, message, field)


def _no_reservation(reservation_id: str) -> Rejection:
    message = f"reservation {reservation_id} is not open: it was never made, or is closed already"
    return Rejection(Code.RESERVATION_NOT_FOUND, message, "reservation_id")


def _pieces(count: int) -> str:
    return "1 piece" if count == 1 else f"{count} pieces"


def evolve(loaded: Loaded, event: InventoryEvent, at_ms: int) -> Loaded:
    """The stock level, and the reservation if the event is about one, after the event."""
    level: StockLevel = loaded.root
    match event:
        case StockReserved(reservation_id, quantity, made_by):
            opened = Reservation(reservation_id, quantity, at_ms, made_by)
            changed = _changed(level, at_ms, reserved=quantity)
            return Loaded(changed, {**loaded.parts, reservation_id: opened})
        case ReservationCommitted(reservation_id, quantity):
            changed = _changed(level, at_ms, reserved=-quantity, shipped=quantity)
            return Loaded(changed, {**loaded.parts, reservation_id: None})
        case ReservationReleased(reservation_id, quantity):
            changed = _changed(level, at_ms, reserved=-quantity)
            return Loaded(changed, {**loaded.parts, reservation_id: None})
        case StockReceived(quantity):
            return Loaded(_changed(level, at_ms, received=quantity), loaded.parts)
        case StockAdjusted(delta):
            return Loaded(_changed(level, at_ms, adjusted=delta), loaded.parts)
        case ItemRegistered(description, threshold):
            return Loaded(StockLevel(description, threshold, 0, 0, 0, 0, 0, at_ms), loaded.parts)
        case _:
            assert_never(event)


def _changed(
    level: StockLevel,
    at_ms: int,
    *,
    reserved: int = 0,
    received: int = 0,
    adjusted: int = 0,
    shipped: int = 0,
) -> StockLevel:
    """The level with these amounts added; what is on hand follows from them, as the law says."""
    return StockLevel(
        level.description,
        level.low_stock_threshold,
        level.on_hand + received + adjusted - shipped,
        level.reserved + reserved,
        level.received + received,
        level.adjusted + adjusted,
        level.shipped + shipped,
        at_ms,
    )


INVENTORY: Final = Aggregate(
    name="inventory",
    commands=(
        RegisterItem,
        ReceiveStock,
        AdjustStock,
        ReserveStock,
        ReleaseReservation,
        CommitReservation,
    ),
    events=EVENTS,
    root_type=StockLevel,
    decide=decide,
    evolve=evolve,
    part_type=Reservation,
    parts_of=parts_of,
)
