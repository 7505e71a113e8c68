"""What follows from a payment's event, and from the gateway's answer: which commands are sent. Pure.

The invariant: the same event and the same answer give the same commands, ids and bytes, so a reaction
that is repeated, after a crash or a rebalance, is answered from the processor's memory. There is one
charge in a payment's life, so its follow-ups have the charge's key in their ids: no client knows that
beforehand, so no command of a client takes such an id. A refund can be requested again, and then asks for
a new judgement: its follow-ups have the request's version, too.
"""

from typing import Any, Final, assert_never

import msgspec

from payments.checked_events import MAX_TEXT, read_checked
from payments.gateway import Charge, Charged, Declined, Refunded
from schemas.ids import derived_id
from schemas.payment import PaymentChargeUnbooked, PaymentRefundRequested, PaymentRequested
from schemas.records import CommandRecord, EventRecord, encode

NOT_BOOKED: Final = "the charge is not in the books"


class Refund(msgspec.Struct, frozen=True):
    """Give back what was charged under the key, or see to it that nothing will be. ``version``: the
    payment's, with this request. ``booked``: what went back goes into the books.
    """

    key: str
    reason: str
    version: int
    booked: bool = True


Task = Charge | Refund


def react(payment_id: str, event: EventRecord) -> Task | None:
    """Return what the gateway is asked; None where it is not its matter. Raises msgspec.MsgspecError, also
    for an event that no payment of this pipeline can have.

    The gateway's key stands in the event; where it does not, an older release has charged under the
    payment id. Of a payment without a token no gateway knows.
    """
    checked = read_checked(payment_id, event)
    if checked is None or checked.token is None:
        return None
    key = checked.gateway_key or payment_id
    match checked:
        case PaymentRequested():
            return Charge(key, checked.amount, checked.currency, checked.token)
        case PaymentRefundRequested():
            return Refund(key, checked.reason, event.version)
        case PaymentChargeUnbooked():
            return Refund(key, NOT_BOOKED, event.version, booked=False)
        case _:
            assert_never(checked)


class Followup(msgspec.Struct, frozen=True):
    """A command to the payment. ``answers``: it is what whoever caused the event waits for."""

    command: CommandRecord
    answers: bool = True


def after_charge(
    charge: Charge, answer: Charged | Declined, *, named: bool = True
) -> tuple[Followup, ...]:
    """The payment is captured or has failed. ``named``: a capture names its charge."""
    match answer:
        case Charged(amount, reference):
            captured = _captured(charge.key, amount, reference, named=named)
            return (Followup(_command(charge.key, "capture", "CapturePayment", captured)),)
        case Declined(reason):
            data = {"reason": _text(reason) or "declined"}
            return (Followup(_command(charge.key, "decline", "FailPayment", data)),)


def after_refund(refund: Refund, answer: Refunded, *, named: bool = True) -> tuple[Followup, ...]:
    """The capture, in case the charge's own was never sent, then the refund; or the payment has failed.
    ``named``: as in ``after_charge``.
    """
    if not refund.booked:
        return ()
    if answer.amount == 0:
        data = {"reason": _text(refund.reason) or "refunded"}
        return (Followup(_command(refund.key, f"cancel.{refund.version}", "FailPayment", data)),)
    captured = _captured(refund.key, answer.amount, answer.reference, named=named)
    capture = _command(refund.key, f"capture.{refund.version}", "CapturePayment", captured)
    back = {"amount": answer.amount, "reason": _text(refund.reason)}
    return (
        Followup(capture, answers=False),
        Followup(_command(refund.key, f"refund.{refund.version}", "RefundPayment", back)),
    )


def _captured(key: str, amount: int, reference: str | None, *, named: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"amount": amount, "reference": _text(reference or "")}
    return data | {"charge": key} if named else data


def _command(key: str, name: str, kind: str, data: dict[str, Any]) -> CommandRecord:
    return CommandRecord(
        type=kind, command_id=derived_id(key, name), data=msgspec.Raw(encode(data))
    )


def _text(text: str) -> str | None:
    """What a command takes for a text; None for nothing but blanks."""
    return text.strip()[:MAX_TEXT].strip() or None
