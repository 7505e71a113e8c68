"""The saga `create_order`: an order over users, inventory, payments and orders, coordinated in one place.

    validateUser → reserveInventory → processPayment → createOrder

The saga id is the id of the order, of its reservations and of its payment. Its steps are also those
of the choreography (sagas/choreography.py), where each service has its own.
"""

from collections import Counter
from typing import Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from commands.aggregate import Command
from commands.inventory import ReleaseReservation, ReserveStock
from commands.order import MAX_LINES, CancelOrder, CreateOrder, Line
from commands.payment import RequestPayment, RequestRefund
from commands.text import Text
from commands.user import ValidateUser
from sagas.definition import (
    Again,
    Answer,
    Done,
    NothingToDo,
    Reading,
    Refused,
    Retry,
    SagaDefinition,
    Send,
    Step,
    Undo,
    Waiting,
    read_outcome,
    reading_as_done,
)
from schemas.ids import Id
from schemas.money import MAX_AMOUNT, MAX_QUANTITY, Currency
from schemas.rejections import Code

Coordination = Literal["orchestration", "choreography"]

PAYMENT_DECLINED: Final = "payment_declined"
REASON: Final = "the order could not be placed"


class OrderToPlace(Command):
    """What a user orders, and how it is paid."""

    user_id: Id = Field(description="Who orders.")
    currency: Currency = Field(description="Currency of all prices, ISO 4217.")
    lines: tuple[Line, ...] = Field(
        min_length=1, max_length=MAX_LINES, description="What is ordered, 1 to 1,000 lines."
    )
    payment_token: Text = Field(description="The payment method, as the gateway knows it.")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.total > MAX_AMOUNT:
            raise PydanticCustomError("total_too_large", "The lines add up to too large a total")
        if max(self.pieces().values()) > MAX_QUANTITY:
            raise PydanticCustomError(
                "too_many", "Too many pieces of one SKU in all lines together"
            )
        return self

    @property
    def total(self) -> int:
        """What is to be paid, minor units of ``currency``."""
        return sum(line.quantity * line.unit_price for line in self.lines)

    def pieces(self) -> dict[str, int]:
        """Pieces by SKU, over all lines, in the order of the lines."""
        pieces: Counter[str] = Counter()
        for line in self.lines:
            pieces[line.sku] += line.quantity
        return dict(pieces)


def _validate_user(_: str, order: OrderToPlace) -> tuple[Send, ...]:
    return (Send("user", order.user_id, ValidateUser()),)


def _reserve(order_id: str, order: OrderToPlace) -> tuple[Send, ...]:
    return tuple(
        Send("inventory", sku, ReserveStock(reservation_id=order_id, quantity=quantity))
        for sku, quantity in order.pieces().items()
    )


def _release(order_id: str, _: OrderToPlace, reserved: Send) -> Send:
    release = ReleaseReservation(reservation_id=order_id)
    return Send("inventory", reserved.aggregate_id, release)


def _request_payment(order_id: str, order: OrderToPlace) -> tuple[Send, ...]:
    if order.total == 0:
        return ()
    request = RequestPayment(
        order_id=order_id, amount=order.total, currency=order.currency, token=order.payment_token
    )
    return (Send("payment", order_id, request),)


def _read_payment(answer: Answer) -> Reading:
    """Requested is not paid: the capture, or the failure, comes as a further answer."""
    if answer.type == "RequestPayment":
        return Waiting() if answer.accepted else read_outcome(answer)
    if not answer.accepted:
        return Waiting()  # a repetition that came too late
    if answer.type == "CapturePayment":
        return _read_capture(answer)
    reasons = [event.data.get("reason") for event in answer.events]
    return Refused(PAYMENT_DECLINED, str(reasons[0]) if reasons else "the payment failed")


def _read_capture(answer: Answer) -> Reading:
    """Captured is paid, unless it goes back already: then this step comes to nothing."""
    if answer.repeated:
        return Waiting()  # its events were told before, and they alone say whether the money stays
    if any(
        event.type == "PaymentCaptured" and not event.data.get("refunding")
        for event in answer.events
    ):
        return Done()
    return Refused(PAYMENT_DECLINED, "the money that was taken goes back", to_undo=True)


def _refund(order_id: str, _: OrderToPlace, __: Send) -> Send:
    return Send("payment", order_id, RequestRefund(reason=REASON))


_read_refund_outcome: Final = reading_as_done(Code.PAYMENT_NOT_FOUND, Code.MADE_BY_ANOTHER)


def _read_refund(answer: Answer) -> Reading:
    """Asked for is not given back; where nothing was taken, the payment fails instead."""
    match answer.type:
        case "RequestRefund":
            if answer.accepted and not answer.repeated and not answer.events:
                return NothingToDo()
            return Waiting() if answer.accepted else _read_refund_outcome(answer)
        case "RefundPayment":
            return _read_refund_outcome(answer)
        case "FailPayment":
            if answer.accepted:
                return NothingToDo()
            reading = read_outcome(answer)
            return reading if isinstance(reading, Again) else Waiting()
        case _:
            return Waiting()


def _create(order_id: str, order: OrderToPlace) -> tuple[Send, ...]:
    create = CreateOrder(
        user_id=order.user_id, currency=order.currency, lines=order.lines, confirm=True
    )
    return (Send("order", order_id, create),)


def _cancel(order_id: str, _: OrderToPlace, __: Send) -> Send:
    return Send("order", order_id, CancelOrder(reason=REASON))


VALIDATE_USER: Final = Step("validateUser", _validate_user, undo=None)

RESERVE_INVENTORY: Final = Step(
    "reserveInventory",
    _reserve,
    undo=Undo(
        _release,
        reading_as_done(Code.RESERVATION_NOT_FOUND, Code.ITEM_NOT_FOUND, Code.MADE_BY_ANOTHER),
    ),
)

PROCESS_PAYMENT: Final = Step(
    "processPayment",
    _request_payment,
    undo=Undo(_refund, _read_refund, Retry(attempts=8)),
    read=_read_payment,
)

CREATE_ORDER: Final = Step(
    "createOrder",
    _create,
    undo=Undo(_cancel, reading_as_done(Code.ORDER_NOT_FOUND, Code.MADE_BY_ANOTHER)),
)

SAGA: Final = SagaDefinition(
    name="create_order",
    input=OrderToPlace,
    steps=(VALIDATE_USER, RESERVE_INVENTORY, PROCESS_PAYMENT, CREATE_ORDER),
)
