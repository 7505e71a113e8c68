"""Read the events that the gateway is asked about, within the bounds that a payment's commands have. Pure.

The history may hold records that no processor wrote. The invariant: an event that is returned can be one of
this payment, so the gateway is asked nothing that no payment of the pipeline asks.
"""

import re
from typing import Annotated, Final, TypeVar

import msgspec

from schemas.ids import ID_PATTERN, MAX_ID_LENGTH, can_be_scoped, is_id
from schemas.money import CURRENCY_PATTERN, MAX_AMOUNT
from schemas.payment import PaymentChargeUnbooked, PaymentRefundRequested, PaymentRequested
from schemas.records import FIRST_VERSION, EventRecord
from schemas.upcasting import Reader

MAX_TEXT: Final = 200
"""Characters of a text, as the commands' models have it."""

CheckedAmount = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
CheckedCurrency = Annotated[str, msgspec.Meta(max_length=3, pattern=CURRENCY_PATTERN)]
CheckedId = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH, pattern=ID_PATTERN + r"\Z")]
CheckedText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
"""The bounds of ``Amount``, ``Currency``, ``Id`` and ``Text``, which only commands have."""

_event_number: Final = re.compile(r":[0-9]{1,18}\Z")


class CheckedRequest(PaymentRequested, frozen=True, kw_only=True):
    """A ``PaymentRequested`` as a processor writes it."""

    order_id: CheckedId
    amount: CheckedAmount
    currency: CheckedCurrency
    token: CheckedText | None = None
    made_by: CheckedId | None = None
    gateway_key: CheckedId | None = None


class CheckedRefundRequest(PaymentRefundRequested, frozen=True, kw_only=True):
    """A ``PaymentRefundRequested`` as a processor writes it."""

    reason: CheckedText
    token: CheckedText | None = None
    gateway_key: CheckedId | None = None


class CheckedUnbookedCharge(PaymentChargeUnbooked, frozen=True, kw_only=True):
    """A ``PaymentChargeUnbooked`` as a processor writes it."""

    amount: CheckedAmount
    reference: CheckedText
    token: CheckedText | None = None
    gateway_key: CheckedId | None = None


Checked = CheckedRequest | CheckedRefundRequest | CheckedUnbookedCharge
C = TypeVar("C", CheckedRequest, CheckedRefundRequest, CheckedUnbookedCharge)

_requests: Final = Reader(CheckedRequest)
_refund_requests: Final = Reader(CheckedRefundRequest)
_unbooked: Final = Reader(CheckedUnbookedCharge)


def read_checked(payment_id: str, event: EventRecord) -> Checked | None:
    """Return the event; None for a type that is not the gateway's matter. Raises msgspec.MsgspecError for
    an event that no payment of this id can have.
    """
    match event.type:
        case PaymentRequested.__name__:
            return _read(payment_id, event, _requests)
        case PaymentRefundRequested.__name__:
            return _read(payment_id, event, _refund_requests)
        case PaymentChargeUnbooked.__name__:
            return _read(payment_id, event, _unbooked)
        case _:
            return None


def _read(payment_id: str, event: EventRecord, reader: Reader[C]) -> C:
    found = reader.read(event.data, event.schema_version)
    if event.version < FIRST_VERSION:
        raise msgspec.ValidationError("the version of the event is below 1")
    if not is_id(_event_number.sub("", event.id)):
        raise msgspec.ValidationError("the id of the event is none that a processor makes")
    key = found.gateway_key
    if key is not None and not can_be_scoped(key, payment_id):
        raise msgspec.ValidationError("the gateway key is none of this payment")
    return found
