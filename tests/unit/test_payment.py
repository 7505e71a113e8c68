"""Payments: requested, captured or failed, refunded; never more money back than came in."""

from itertools import product

import pytest

from commands.aggregate import Command
from commands.payment import CapturePayment, FailPayment, RefundPayment, RequestPayment
from schemas.payment import (
    PaymentCaptured,
    PaymentEvent,
    PaymentFailed,
    PaymentRefunded,
    PaymentRequested,
    PaymentState,
    PaymentStatus,
)
from schemas.rejections import Code, Rejection
from tests.support.decisions import given

REQUESTED = PaymentRequested("o-1", 1_000, "EUR")
CAPTURED: list[PaymentEvent] = [REQUESTED, PaymentCaptured(1_000)]
PARTLY_BACK: list[PaymentEvent] = [*CAPTURED, PaymentRefunded(700)]

PASTS: dict[PaymentStatus, list[PaymentEvent]] = {
    PaymentStatus.REQUESTED: [REQUESTED],
    PaymentStatus.FAILED: [REQUESTED, PaymentFailed("no cover")],
    PaymentStatus.CAPTURED: [*CAPTURED],
    PaymentStatus.PARTIALLY_REFUNDED: [*PARTLY_BACK],
    PaymentStatus.REFUNDED: [*PARTLY_BACK, PaymentRefunded(300)],
}
STEPS: dict[PaymentStatus, Command] = {
    PaymentStatus.CAPTURED: CapturePayment(),
    PaymentStatus.FAILED: FailPayment(reason="no cover"),
    PaymentStatus.PARTIALLY_REFUNDED: RefundPayment(amount=1),
    PaymentStatus.REFUNDED: RefundPayment(),
}
ALLOWED = {"requested captured", "requested failed"}
ALLOWED |= {
    f"{start} {end}"
    for start in ("captured", "partially_refunded")
    for end in ("partially_refunded", "refunded")
}


def payment(
    status: PaymentStatus, captured: int = 0, refunded: int = 0, *, at_ms: int
) -> PaymentState:
    return PaymentState(status, "o-1", "EUR", 1_000, captured, refunded, 1, at_ms)


def test_a_payment_is_requested() -> None:
    command = RequestPayment(order_id="o-1", amount=1_000, currency="EUR")
    given([]).when(command).then([REQUESTED]).then_state(payment(PaymentStatus.REQUESTED, at_ms=1))


def test_a_payment_is_not_requested_twice() -> None:
    command = RequestPayment(order_id="o-2", amount=1, currency="USD")
    given(PARTLY_BACK).when(command).then_rejected(
        Code.PAYMENT_ALREADY_EXISTS,
        "a payment with this id exists already, and is partially refunded",
    )


@pytest.mark.parametrize("command", list(STEPS.values()), ids=list(STEPS))
def test_a_payment_that_was_not_requested_cannot_move(command: Command) -> None:
    given([]).when(command).then_rejected(Code.PAYMENT_NOT_FOUND, "no payment has this id")


@pytest.mark.parametrize(("start", "end"), list(product(PASTS, STEPS)))
def test_a_payment_moves_along_the_table_and_no_other_way(
    start: PaymentStatus, end: PaymentStatus
) -> None:
    decided = given(PASTS[start]).when(STEPS[end])
    if f"{start} {end}" in ALLOWED:
        assert decided.state.root.status is end
    else:
        assert isinstance(decided.decision, Rejection)
        assert decided.decision.code is Code.INVALID_TRANSITION
        assert decided.decision.field is None


def test_a_refused_move_says_from_where_to_where_and_what_there_is_instead() -> None:
    given(PASTS[PaymentStatus.CAPTURED]).when(FailPayment(reason="x")).then_rejected(
        Code.INVALID_TRANSITION,
        "the payment is captured and cannot become failed, only partially refunded or refunded",
    )
    given(PASTS[PaymentStatus.REFUNDED]).when(RefundPayment()).then_rejected(
        Code.INVALID_TRANSITION,
        "the payment is refunded and cannot become refunded, and that is final",
    )


def test_all_that_was_requested_is_captured_unless_said_otherwise() -> None:
    given([REQUESTED]).when(CapturePayment(reference="gw-9")).then(
        [PaymentCaptured(1_000, "gw-9")]
    ).then_state(payment(PaymentStatus.CAPTURED, 1_000, at_ms=2))


def test_less_than_was_requested_can_be_captured() -> None:
    given([REQUESTED]).when(CapturePayment(amount=400)).then([PaymentCaptured(400)]).then_state(
        payment(PaymentStatus.CAPTURED, 400, at_ms=2)
    )


def test_more_than_was_requested_is_not_captured() -> None:
    given([REQUESTED]).when(CapturePayment(amount=1_001)).then_rejected(
        Code.CAPTURE_EXCEEDS_REQUEST,
        "a capture of 1001 asked for, but only 1000 was requested (EUR minor units)",
        "amount",
    )


def test_a_payment_fails() -> None:
    given([REQUESTED]).when(FailPayment(reason="no cover")).then(
        [PaymentFailed("no cover")]
    ).then_state(payment(PaymentStatus.FAILED, at_ms=2))


def test_all_that_is_left_is_refunded_unless_said_otherwise() -> None:
    given(CAPTURED).when(RefundPayment(reason="broken")).then(
        [PaymentRefunded(1_000, "broken")]
    ).then_state(payment(PaymentStatus.REFUNDED, 1_000, 1_000, at_ms=3))
    given(PARTLY_BACK).when(RefundPayment()).then([PaymentRefunded(300)]).then_state(
        payment(PaymentStatus.REFUNDED, 1_000, 1_000, at_ms=4)
    )


def test_a_part_is_refunded() -> None:
    given(CAPTURED).when(RefundPayment(amount=700)).then([PaymentRefunded(700)]).then_state(
        payment(PaymentStatus.PARTIALLY_REFUNDED, 1_000, 700, at_ms=3)
    )


def test_refunds_never_exceed_what_was_captured() -> None:
    given(PARTLY_BACK).when(RefundPayment(amount=300)).then([PaymentRefunded(300)])
    given(PARTLY_BACK).when(RefundPayment(amount=301)).then_rejected(
        Code.REFUND_EXCEEDS_CAPTURE,
        "a refund of 301 asked for, but only 300 of the 1000 captured is left (EUR minor units)",
        "amount",
    )


def test_after_a_partial_capture_only_that_part_can_be_refunded() -> None:
    past = [REQUESTED, PaymentCaptured(400)]
    given(past).when(RefundPayment()).then([PaymentRefunded(400)])
    given(past).when(RefundPayment(amount=401)).then_rejected(
        Code.REFUND_EXCEEDS_CAPTURE,
        "a refund of 401 asked for, but only 400 of the 400 captured is left (EUR minor units)",
        "amount",
    )
