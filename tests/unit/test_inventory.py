"""Stock of one SKU: what can be received, adjusted, reserved, released and committed."""

import pytest
from pydantic import ValidationError

from commands.aggregate import Command
from commands.inventory import (
    AdjustStock,
    CommitReservation,
    ReceiveStock,
    RegisterItem,
    ReleaseReservation,
    ReserveStock,
)
from schemas.inventory import (
    ItemRegistered,
    Reservation,
    ReservationCommitted,
    ReservationReleased,
    StockAdjusted,
    StockLevel,
    StockReceived,
    StockReserved,
)
from schemas.money import MAX_AMOUNT
from schemas.rejections import Code
from tests.support.decisions import given

CUP = ItemRegistered("a cup", 10)
TEN_CUPS = [CUP, StockReceived(10)]
THREE_HELD = [*TEN_CUPS, StockReserved("o-1", 3)]


def stock(on_hand: int, reserved: int, *, at_ms: int, **totals: int) -> StockLevel:
    sums = {"received": 10, "adjusted": 0, "shipped": 0, **totals}
    return StockLevel("a cup", 10, on_hand, reserved, **sums, updated_at_ms=at_ms)


def test_a_new_item_has_nothing_on_hand() -> None:
    given([]).when(RegisterItem(description="a cup")).then([CUP]).then_state(
        stock(0, 0, received=0, at_ms=1)
    )


def test_opening_stock_is_received_at_once() -> None:
    command = RegisterItem(description="a cup", opening_stock=10)
    given([]).when(command).then(TEN_CUPS).then_state(stock(10, 0, at_ms=2))


def test_the_threshold_of_low_stock_can_be_chosen() -> None:
    command = RegisterItem(description="a cup", low_stock_threshold=0)
    given([]).when(command).then([ItemRegistered("a cup", 0)])


def test_an_item_is_not_registered_twice() -> None:
    given(TEN_CUPS).when(RegisterItem(description="a cup")).then_rejected(
        Code.ITEM_ALREADY_REGISTERED,
        "an item is registered under this SKU already, with 10 pieces on hand",
    )


@pytest.mark.parametrize(
    "command",
    [
        ReceiveStock(quantity=1),
        AdjustStock(delta=1, reason="x"),
        ReserveStock(reservation_id="o-1", quantity=1),
        ReleaseReservation(reservation_id="o-1"),
        CommitReservation(reservation_id="o-1"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_can_be_done_with_an_item_that_is_not_registered(command: Command) -> None:
    given([]).when(command).then_rejected(
        Code.ITEM_NOT_FOUND, "no item is registered under this SKU"
    )


def test_received_stock_is_on_hand() -> None:
    command = ReceiveStock(quantity=5, reference="delivery 7")
    given(TEN_CUPS).when(command).then([StockReceived(5, "delivery 7")]).then_state(
        stock(15, 0, received=15, at_ms=3)
    )


def test_stock_is_adjusted_up_and_down() -> None:
    given(TEN_CUPS).when(AdjustStock(delta=2, reason="found")).then(
        [StockAdjusted(2, "found")]
    ).then_state(stock(12, 0, adjusted=2, at_ms=3))
    given(TEN_CUPS).when(AdjustStock(delta=-2, reason="broken")).then(
        [StockAdjusted(-2, "broken")]
    ).then_state(stock(8, 0, adjusted=-2, at_ms=3))


def test_an_adjustment_may_take_all_that_is_available_but_not_what_is_reserved() -> None:
    given(THREE_HELD).when(AdjustStock(delta=-7, reason="lost")).then([StockAdjusted(-7, "lost")])
    given(THREE_HELD).when(AdjustStock(delta=-8, reason="lost")).then_rejected(
        Code.INSUFFICIENT_STOCK,
        "8 pieces fewer asked for, but only 7 of 10 are available",
        "delta",
    )


def test_an_adjustment_by_zero_is_refused() -> None:
    with pytest.raises(ValidationError, match="An adjustment by 0 pieces changes nothing"):
        AdjustStock(delta=0, reason="x")


def test_a_reservation_holds_pieces_back() -> None:
    decided = given(TEN_CUPS).when(ReserveStock(reservation_id="o-1", quantity=3))
    decided.then([StockReserved("o-1", 3)]).then_state(stock(10, 3, at_ms=3))
    assert decided.state.parts == {"o-1": Reservation("o-1", 3, reserved_at_ms=3)}


def test_the_last_piece_can_be_reserved_but_no_piece_more() -> None:
    given(THREE_HELD).when(ReserveStock(reservation_id="o-2", quantity=7)).then(
        [StockReserved("o-2", 7)]
    )
    given(THREE_HELD).when(ReserveStock(reservation_id="o-2", quantity=8)).then_rejected(
        Code.INSUFFICIENT_STOCK,
        "8 pieces asked for, but only 7 of 10 are available",
        "quantity",
    )


def test_one_piece_is_called_a_piece() -> None:
    given([CUP]).when(ReserveStock(reservation_id="o-1", quantity=1)).then_rejected(
        Code.INSUFFICIENT_STOCK, "1 piece asked for, but only 0 of 0 are available", "quantity"
    )


def test_an_open_reservation_is_not_opened_again() -> None:
    given(THREE_HELD).when(ReserveStock(reservation_id="o-1", quantity=1)).then_rejected(
        Code.RESERVATION_ALREADY_EXISTS,
        "reservation o-1 is open already, for 3 pieces",
        "reservation_id",
    )


def test_released_pieces_are_available_again_and_the_reservation_is_gone() -> None:
    decided = given(THREE_HELD).when(ReleaseReservation(reservation_id="o-1"))
    decided.then([ReservationReleased("o-1", 3)]).then_state(stock(10, 0, at_ms=4))
    assert decided.state.parts == {"o-1": None}


def test_committed_pieces_are_shipped_and_the_reservation_is_gone() -> None:
    decided = given(THREE_HELD).when(CommitReservation(reservation_id="o-1"))
    decided.then([ReservationCommitted("o-1", 3)]).then_state(stock(7, 0, shipped=3, at_ms=4))
    assert decided.state.parts == {"o-1": None}


def test_closing_one_reservation_leaves_the_others_open() -> None:
    two_held = [*THREE_HELD, StockReserved("o-2", 4)]
    decided = given(two_held).when(ReleaseReservation(reservation_id="o-1"))
    assert decided.state.parts == {"o-1": None, "o-2": Reservation("o-2", 4, reserved_at_ms=4)}


@pytest.mark.parametrize("past", [TEN_CUPS, [*THREE_HELD, ReservationReleased("o-1", 3)]])
@pytest.mark.parametrize(
    "command",
    [ReleaseReservation(reservation_id="o-1"), CommitReservation(reservation_id="o-1")],
    ids=lambda command: type(command).__name__,
)
def test_what_is_not_open_cannot_be_closed(
    past: list[ItemRegistered | StockReceived], command: Command
) -> None:
    given(past).when(command).then_rejected(
        Code.RESERVATION_NOT_FOUND,
        "reservation o-1 is not open: it was never made, or is closed already",
        "reservation_id",
    )


def test_a_closed_reservation_may_be_opened_anew() -> None:
    past = [*THREE_HELD, ReservationReleased("o-1", 3)]
    given(past).when(ReserveStock(reservation_id="o-1", quantity=2)).then([StockReserved("o-1", 2)])


def test_stock_on_hand_has_a_limit() -> None:
    nearly_full = [CUP, StockReceived(MAX_AMOUNT - 2), StockAdjusted(1, "found")]
    given(nearly_full).when(ReceiveStock(quantity=1)).then([StockReceived(1)])
    given(nearly_full).when(ReceiveStock(quantity=2)).then_rejected(
        Code.STOCK_LIMIT_EXCEEDED,
        f"2 pieces more would make {MAX_AMOUNT + 1} on hand; the limit is {MAX_AMOUNT}",
        "quantity",
    )
    given(nearly_full).when(AdjustStock(delta=2, reason="found")).then_rejected(
        Code.STOCK_LIMIT_EXCEEDED,
        f"2 pieces more would make {MAX_AMOUNT + 1} on hand; the limit is {MAX_AMOUNT}",
        "delta",
    )


def test_what_was_ever_received_has_a_limit() -> None:
    past = [CUP, StockReceived(MAX_AMOUNT), StockAdjusted(-MAX_AMOUNT, "burnt")]
    given(past).when(ReceiveStock(quantity=1)).then_rejected(
        Code.STOCK_LIMIT_EXCEEDED,
        f"1 piece more would make {MAX_AMOUNT + 1} ever received; the limit is {MAX_AMOUNT}",
        "quantity",
    )


def all_shipped(pieces: int) -> list[StockReserved | ReservationCommitted]:
    return [StockReserved("o-0", pieces), ReservationCommitted("o-0", pieces)]


def test_what_was_ever_adjusted_has_a_limit() -> None:
    past = [CUP, StockAdjusted(MAX_AMOUNT, "found"), *all_shipped(MAX_AMOUNT)]
    given(past).when(AdjustStock(delta=1, reason="found")).then_rejected(
        Code.STOCK_LIMIT_EXCEEDED,
        f"1 piece more would make {MAX_AMOUNT + 1} ever adjusted; the limit is {MAX_AMOUNT}",
        "delta",
    )


def test_what_was_ever_shipped_has_a_limit() -> None:
    past = [
        *(CUP, StockReceived(MAX_AMOUNT), *all_shipped(MAX_AMOUNT)),
        *(StockAdjusted(1, "found"), StockReserved("o-1", 1)),
    ]
    given(past).when(CommitReservation(reservation_id="o-1")).then_rejected(
        Code.STOCK_LIMIT_EXCEEDED,
        f"1 piece more would make {MAX_AMOUNT + 1} ever shipped; the limit is {MAX_AMOUNT}",
        "reservation_id",
    )


def test_only_its_maker_may_say_that_a_reservation_is_its_to_release() -> None:
    mine = ReleaseReservation(reservation_id="o-1", only_if_made_by="o-1.5c0pe")
    signed = [*TEN_CUPS, StockReserved("o-1", 3, "o-1.5c0pe")]
    given(signed).when(mine).then([ReservationReleased("o-1", 3)])
    for past in (THREE_HELD, [*TEN_CUPS, StockReserved("o-1", 3, "o-1.other")]):
        given(past).when(mine).then_rejected(
            Code.MADE_BY_ANOTHER,
            "reservation o-1 was not made by o-1.5c0pe, so it is not touched",
            "only_if_made_by",
        )
