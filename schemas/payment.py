"""A payment: events and state on the wire. Key: payment id. Amounts are minor units of ``currency``."""

from enum import StrEnum
from typing import Final

import msgspec

from schemas.decoding import Int64


class PaymentRequested(msgspec.Struct, frozen=True):
    """Somebody is to pay ``amount`` for an order. ``token``: the payment method's at the gateway;
    None: no gateway is called, the money is taken otherwise. ``made_by``: who alone may have it refunded
    (commands/ownership.py). ``gateway_key``: idempotency key of the charge at the gateway; None: the
    payment id, as older releases had it.
    """

    order_id: str
    amount: Int64
    currency: str
    token: str | None = None
    made_by: str | None = None
    gateway_key: str | None = None


class PaymentCaptured(msgspec.Struct, frozen=True):
    """The money was taken; ``reference`` is the gateway's. ``refunding``: the gateway is asked to give it
    back already, because the refund was requested, or the payment had failed, before this was known.
    """

    amount: Int64
    reference: str | None = None
    refunding: bool = False


class PaymentFailed(msgspec.Struct, frozen=True):
    """The money was not taken and will not be."""

    reason: str


class PaymentRefundRequested(msgspec.Struct, frozen=True):
    """What was taken is to go back; if nothing was taken yet, nothing is to be taken any more.
    ``token`` and ``gateway_key`` are the request's: whether a gateway has to be asked, and for what.
    """

    reason: str
    token: str | None = None
    gateway_key: str | None = None


class PaymentRefunded(msgspec.Struct, frozen=True):
    """``amount`` went back; several refunds never exceed what was captured."""

    amount: Int64
    reason: str | None = None


class PaymentChargeUnbooked(msgspec.Struct, frozen=True):
    """The gateway has charged ``amount`` under its number ``reference``, but another capture is booked, or
    the payment has ended: the charge goes back, and the books stay as they are. ``token`` and
    ``gateway_key`` are the request's.
    """

    amount: Int64
    reference: str
    token: str | None = None
    gateway_key: str | None = None


PaymentEvent = (
    PaymentRequested
    | PaymentCaptured
    | PaymentFailed
    | PaymentRefundRequested
    | PaymentRefunded
    | PaymentChargeUnbooked
)


class PaymentStatus(StrEnum):
    """Where a payment stands; commands/payment.py has the table of moves."""

    REQUESTED = "requested"
    CAPTURED = "captured"
    FAILED = "failed"
    REFUND_REQUESTED = "refund_requested"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class PaymentState(msgspec.Struct, frozen=True):
    """The whole payment after an event: ``0 <= refunded <= captured <= requested``. ``reference``: the
    gateway's, of what was captured. ``unbooked``: the gateway's, of a charge that is not in the books and
    goes back.
    """

    status: PaymentStatus
    order_id: str
    currency: str
    requested: Int64
    captured: Int64
    refunded: Int64
    created_at_ms: Int64
    updated_at_ms: Int64
    token: str | None = None
    reference: str | None = None
    made_by: str | None = None
    gateway_key: str | None = None
    unbooked: str | None = None


EVENTS: Final[tuple[type[PaymentEvent], ...]] = (
    PaymentRequested,
    PaymentCaptured,
    PaymentFailed,
    PaymentRefundRequested,
    PaymentRefunded,
    PaymentChargeUnbooked,
)
