"""A payment: requested, then captured or failed, then refunded at once or bit by bit.

A refund can be requested at any time. Whether the money had been taken by then is only known when
the gateway has answered, so until then a payment whose refund is requested can still be captured. So can
one that was failed by hand while the gateway was charging: its refund is requested in the same decision.
What a gateway has charged is never refused: where the books have another capture, or the payment has ended,
the charge goes back.

Imported through the table in commands/__init__.py. Laws, at every version:
``0 <= refunded <= captured <= requested``; the status moves along ``MOVES`` and no other way; a
payment is captured at most once.
"""

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec
from pydantic import Field

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.ownership import Maker, OnlyMaker, refuse_another
from commands.text import Text
from schemas.ids import Id, scoped_id
from schemas.money import Amount, Currency
from schemas.payment import (
    EVENTS,
    PaymentCaptured,
    PaymentChargeUnbooked,
    PaymentEvent,
    PaymentFailed,
    PaymentRefunded,
    PaymentRefundRequested,
    PaymentRequested,
    PaymentState,
    PaymentStatus,
)
from schemas.rejections import Code, Rejection

MOVES: Final[Mapping[PaymentStatus, tuple[PaymentStatus, ...]]] = {
    PaymentStatus.REQUESTED: (
        PaymentStatus.CAPTURED,
        PaymentStatus.FAILED,
        PaymentStatus.REFUND_REQUESTED,
    ),
    PaymentStatus.CAPTURED: (
        PaymentStatus.PARTIALLY_REFUNDED,
        PaymentStatus.REFUNDED,
        PaymentStatus.REFUND_REQUESTED,
    ),
    PaymentStatus.PARTIALLY_REFUNDED: (
        PaymentStatus.PARTIALLY_REFUNDED,
        PaymentStatus.REFUNDED,
        PaymentStatus.REFUND_REQUESTED,
    ),
    # To itself: the capture that was under way, a refund of a part, and a refund that is requested again.
    PaymentStatus.REFUND_REQUESTED: (
        PaymentStatus.REFUND_REQUESTED,
        PaymentStatus.REFUNDED,
        PaymentStatus.FAILED,
    ),
    PaymentStatus.REFUNDED: (),
    # By a capture alone: the gateway had charged it all the same.
    PaymentStatus.FAILED: (PaymentStatus.REFUND_REQUESTED,),
}
"""From each status, where a payment can go. Every move stands here and nowhere else."""

CHARGED_ALL_THE_SAME: Final = "the gateway had charged it before the payment failed"
"""Reason of the refund that follows a capture of a payment that has failed."""


class RequestPayment(Command):
    """Ask for the money of an order; the payment id is the record key."""

    order_id: Id = Field(description="The order to be paid.")
    amount: Amount = Field(description="How much, in minor units.")
    currency: Currency = Field(description="Currency of this payment for good, ISO 4217.")
    token: Text | None = Field(
        default=None,
        description="The payment method's token at the gateway; without one no gateway is called.",
    )
    made_by: Maker = None


class CapturePayment(Command):
    """The gateway took the money: all that was requested, or less. Accepted with no event when this
    reference is known already. Of a payment that has failed, its refund is requested at once.
    """

    amount: Amount | None = Field(default=None, description="Minor units taken; all if left out.")
    reference: Text | None = Field(default=None, description="The gateway's own number.")
    charge: Text | None = Field(
        default=None,
        description="Idempotency key of the charge: the gateway itself says so, and what the books cannot "
        "take goes back.",
    )


class FailPayment(Command):
    """The gateway did not take the money, and will not. Accepted with no event when it failed already."""

    reason: Text = Field(description="Why, in words for people.")


class RequestRefund(Command):
    """Give back all that was taken; if nothing was taken yet, see to it that nothing will be.

    Requested again while it is under way, the gateway is asked again, which gives nothing back twice.
    """

    reason: Text = Field(description="Why, in words for people.")
    only_if_made_by: OnlyMaker = None


class RefundPayment(Command):
    """Give money back: all that is left of what was captured, or less."""

    amount: Amount | None = Field(
        default=None, description="Minor units to give back; all that is left if left out."
    )
    reason: Text | None = Field(default=None, description="Why, in words for people.")


PaymentCommand = RequestPayment | CapturePayment | FailPayment | RequestRefund | RefundPayment


def decide(loaded: Loaded, command: PaymentCommand) -> Decision:
    """What follows from the command, or why nothing does."""
    payment: PaymentState | None = loaded.root
    if isinstance(command, RequestPayment):
        return _request(loaded, command)
    if payment is None:
        return Rejection(Code.PAYMENT_NOT_FOUND, "no payment has this id")
    match command:
        case CapturePayment():
            return _capture(loaded, payment, command)
        case FailPayment():
            return _fail(payment, command)
        case RequestRefund():
            return _request_refund(payment, command)
        case RefundPayment():
            return _refund(payment, command)
        case _:
            assert_never(command)


def _request(loaded: Loaded, command: RequestPayment) -> Decision:
    payment: PaymentState | None = loaded.root
    if payment is not None:
        return Rejection(
            Code.PAYMENT_ALREADY_EXISTS,
            f"a payment with this id exists already, and is {_words(payment.status)}",
        )
    key = None if command.token is None else scoped_id(loaded.id, loaded.scope)
    return (
        PaymentRequested(
            command.order_id,
            command.amount,
            command.currency,
            command.token,
            command.made_by,
            key,
        ),
    )


def _capture(loaded: Loaded, payment: PaymentState, command: CapturePayment) -> Decision:
    reference = command.reference
    if reference is not None and reference in (payment.reference, payment.unbooked):
        return ()  # the charge and its refund can both say so
    booked = _book(payment, command)
    charged = payment.token is not None and command.charge == (payment.gateway_key or loaded.id)
    if isinstance(booked, Rejection) and charged and reference is not None:
        amount = payment.requested if command.amount is None else command.amount
        return (PaymentChargeUnbooked(amount, reference, payment.token, payment.gateway_key),)
    return booked


def _book(payment: PaymentState, command: CapturePayment) -> Decision:
    failed = payment.status is PaymentStatus.FAILED and payment.token is not None
    refusal = None if failed else _refuse_move(payment, _status_captured(payment))
    if refusal is not None:
        return refusal
    if payment.captured > 0:
        return _captured_already(payment)
    amount = payment.requested if command.amount is None else command.amount
    if amount > payment.requested:
        message = (
            f"a capture of {amount} asked for, but only {payment.requested} was requested "
            f"({payment.currency} minor units)"
        )
        return Rejection(Code.CAPTURE_EXCEEDS_REQUEST, message, "amount")
    if failed:
        return (
            _refund_requested(payment, CHARGED_ALL_THE_SAME),
            PaymentCaptured(amount, command.reference, refunding=True),
        )
    refunding = payment.status is PaymentStatus.REFUND_REQUESTED and payment.token is not None
    return (PaymentCaptured(amount, command.reference, refunding),)


def _refund_requested(payment: PaymentState, reason: str) -> PaymentRefundRequested:
    return PaymentRefundRequested(reason, payment.token, payment.gateway_key)


def _fail(payment: PaymentState, command: FailPayment) -> Decision:
    if payment.status is PaymentStatus.FAILED:
        return ()  # a decline and a refund that finds nothing charged can both say so
    refusal = _refuse_move(payment, PaymentStatus.FAILED)
    if refusal is not None:
        return refusal
    if payment.captured > 0:
        return _captured_already(payment)
    return (PaymentFailed(command.reason),)


def _captured_already(payment: PaymentState) -> Rejection:
    """Of a payment whose refund is requested: that status alone does not say what was taken."""
    message = f"{payment.captured} {payment.currency} minor units were captured already"
    return Rejection(Code.INVALID_TRANSITION, message)


def _request_refund(payment: PaymentState, command: RequestRefund) -> Decision:
    another = refuse_another("the payment", payment.made_by, command.only_if_made_by)
    if another is not None:
        return another
    if payment.status in (PaymentStatus.FAILED, PaymentStatus.REFUNDED):
        return ()  # nothing was taken, or all of it went back
    if payment.token is not None and payment.refunded > 0:
        return Rejection(Code.INVALID_TRANSITION, _by_hand(payment))
    refusal = _refuse_move(payment, PaymentStatus.REFUND_REQUESTED)
    return refusal or (_refund_requested(payment, command.reason),)


def _by_hand(payment: PaymentState) -> str:
    """Why the gateway, which gives back all or nothing, is out of it."""
    left = payment.captured - payment.refunded
    return (
        f"{payment.refunded} {payment.currency} minor units went back already, not by the gateway, "
        f"which gives back all of a charge: give back the other {left} in the same way"
    )


def _refund(payment: PaymentState, command: RefundPayment) -> Decision:
    left = payment.captured - payment.refunded
    amount = left if command.amount is None else command.amount
    # The move is judged first: of a payment that is not captured, the amount is not what is wrong.
    refusal = _refuse_move(payment, _status_refunded(payment, left - amount))
    if refusal is not None:
        return refusal
    if payment.captured == 0:
        return Rejection(
            Code.INVALID_TRANSITION, "nothing was captured so far, so nothing can go back"
        )
    if amount > left:
        message = (
            f"a refund of {amount} asked for, but only {left} of the {payment.captured} captured "
            f"is left ({payment.currency} minor units)"
        )
        return Rejection(Code.REFUND_EXCEEDS_CAPTURE, message, "amount")
    requested = payment.status is PaymentStatus.REFUND_REQUESTED
    if requested and payment.token is not None and amount < left:
        return Rejection(
            Code.INVALID_TRANSITION,
            "the gateway is giving back all of it, so no part can go back otherwise",
            "amount",
        )
    return (PaymentRefunded(amount, command.reason),)


def _status_captured(payment: PaymentState) -> PaymentStatus:
    """Status after a capture: a refund that is requested stays so."""
    refunding = payment.status is PaymentStatus.REFUND_REQUESTED
    return PaymentStatus.REFUND_REQUESTED if refunding else PaymentStatus.CAPTURED


def _status_refunded(payment: PaymentState, left: int) -> PaymentStatus:
    """Status after a refund that leaves this much to give back."""
    if left <= 0:
        return PaymentStatus.REFUNDED
    refunding = payment.status is PaymentStatus.REFUND_REQUESTED
    return PaymentStatus.REFUND_REQUESTED if refunding else PaymentStatus.PARTIALLY_REFUNDED


def _refuse_move(payment: PaymentState, to: PaymentStatus) -> Rejection | None:
    allowed = MOVES[payment.status]
    if to in allowed:
        return None
    instead = f"only {' or '.join(map(_words, allowed))}" if allowed else "and that is final"
    message = f"the payment is {_words(payment.status)} and cannot become {_words(to)}, {instead}"
    return Rejection(Code.INVALID_TRANSITION, message)


def _words(status: PaymentStatus) -> str:
    return status.replace("_", " ")


def evolve(loaded: Loaded, event: PaymentEvent, at_ms: int) -> Loaded:
    """The payment after the event."""
    payment: PaymentState = loaded.root
    match event:
        case PaymentRequested():
            return Loaded(_requested(event, at_ms))
        case PaymentCaptured(amount, reference):
            status = _status_captured(payment)
            return Loaded(_changed(payment, status, at_ms, captured=amount, reference=reference))
        case PaymentFailed():
            return Loaded(_changed(payment, PaymentStatus.FAILED, at_ms))
        case PaymentRefundRequested():
            return Loaded(_changed(payment, PaymentStatus.REFUND_REQUESTED, at_ms))
        case PaymentRefunded(amount):
            status = _status_refunded(payment, payment.captured - payment.refunded - amount)
            return Loaded(_changed(payment, status, at_ms, refunded=amount))
        case PaymentChargeUnbooked():
            return Loaded(
                msgspec.structs.replace(payment, unbooked=event.reference, updated_at_ms=at_ms)
            )
        case _:
            assert_never(event)


def _requested(event: PaymentRequested, at_ms: int) -> PaymentState:
    return PaymentState(
        PaymentStatus.REQUESTED,
        event.order_id,
        event.currency,
        event.amount,
        captured=0,
        refunded=0,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        token=event.token,
        made_by=event.made_by,
        gateway_key=event.gateway_key,
    )


def _changed(
    payment: PaymentState,
    status: PaymentStatus,
    at_ms: int,
    *,
    captured: int = 0,
    refunded: int = 0,
    reference: str | None = None,
) -> PaymentState:
    """The payment under another status, with these amounts added; a reference stays once it is known."""
    return PaymentState(
        status,
        payment.order_id,
        payment.currency,
        payment.requested,
        payment.captured + captured,
        payment.refunded + refunded,
        payment.created_at_ms,
        at_ms,
        payment.token,
        reference or payment.reference,
        payment.made_by,
        payment.gateway_key,
        payment.unbooked,
    )


PAYMENT: Final = Aggregate(
    name="payment",
    commands=(RequestPayment, CapturePayment, FailPayment, RequestRefund, RefundPayment),
    events=EVENTS,
    root_type=PaymentState,
    decide=decide,
    evolve=evolve,
)
