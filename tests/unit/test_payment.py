"""Payments: requested, captured or failed, refunded; never more money back than came in."""

from itertools import product

import msgspec
import pytest

from commands.aggregate import Command, Loaded
from commands.payment import (
    CHARGED_ALL_THE_SAME,
    PAYMENT,
    CapturePayment,
    FailPayment,
    RefundPayment,
    RequestPayment,
    RequestRefund,
)
from schemas.payment import (
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
from tests.support.decisions import fold, given

REQUESTED = PaymentRequested("o-1", 1_000, "EUR")
CAPTURED: list[PaymentEvent] = [REQUESTED, PaymentCaptured(1_000)]
REFUNDING = PaymentRefundRequested("changed my mind")
PARTLY_BACK: list[PaymentEvent] = [*CAPTURED, PaymentRefunded(700)]

PASTS: dict[PaymentStatus, list[PaymentEvent]] = {
    PaymentStatus.REQUESTED: [REQUESTED],
    PaymentStatus.FAILED: [REQUESTED, PaymentFailed("no cover")],
    PaymentStatus.CAPTURED: [*CAPTURED],
    PaymentStatus.PARTIALLY_REFUNDED: [*PARTLY_BACK],
    PaymentStatus.REFUND_REQUESTED: [REQUESTED, REFUNDING],
    PaymentStatus.REFUNDED: [*PARTLY_BACK, PaymentRefunded(300)],
}
STEPS: dict[PaymentStatus, Command] = {
    PaymentStatus.CAPTURED: CapturePayment(),
    PaymentStatus.FAILED: FailPayment(reason="no cover"),
    PaymentStatus.PARTIALLY_REFUNDED: RefundPayment(amount=1),
    PaymentStatus.REFUNDED: RefundPayment(),
}
ALLOWED = {"requested captured", "requested failed", "failed failed"}
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


def test_the_token_of_a_payment_is_kept_and_stands_on_the_request_of_its_refund() -> None:
    requested = PaymentRequested("o-1", 1_000, "EUR", "tok_1")
    command = RequestPayment(order_id="o-1", amount=1_000, currency="EUR", token="tok_1")
    given([]).when(command).then([requested])
    given([requested]).when(RequestRefund(reason="changed my mind")).then(
        [PaymentRefundRequested("changed my mind", "tok_1")]
    )


def test_a_payment_is_not_requested_twice() -> None:
    command = RequestPayment(order_id="o-2", amount=1, currency="USD")
    given(PARTLY_BACK).when(command).then_rejected(
        Code.PAYMENT_ALREADY_EXISTS,
        "a payment with this id exists already, and is partially refunded",
    )


@pytest.mark.parametrize("command", list(STEPS.values()), ids=list(STEPS))
def test_a_payment_that_was_not_requested_cannot_move(command: Command) -> None:
    given([]).when(command).then_rejected(Code.PAYMENT_NOT_FOUND, "no payment has this id")


WITHOUT_A_CAPTURE = set(product([PaymentStatus.REFUND_REQUESTED], STEPS))
"""What a payment can become whose refund is requested hangs on the money: it has sentences below."""


@pytest.mark.parametrize(("start", "end"), sorted(set(product(PASTS, STEPS)) - WITHOUT_A_CAPTURE))
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
        "the payment is captured and cannot become failed, only partially refunded or refunded or "
        "refund requested",
    )
    given(PASTS[PaymentStatus.REFUNDED]).when(RefundPayment()).then_rejected(
        Code.INVALID_TRANSITION,
        "the payment is refunded and cannot become refunded, and that is final",
    )


def test_all_that_was_requested_is_captured_unless_said_otherwise() -> None:
    captured = payment(PaymentStatus.CAPTURED, 1_000, at_ms=2)
    given([REQUESTED]).when(CapturePayment(reference="gw-9")).then(
        [PaymentCaptured(1_000, "gw-9")]
    ).then_state(msgspec.structs.replace(captured, reference="gw-9"))


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


def test_a_payment_that_failed_does_not_fail_again() -> None:
    given(PASTS[PaymentStatus.FAILED]).when(FailPayment(reason="never charged")).then([])


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


OPEN = (
    PaymentStatus.REQUESTED,
    PaymentStatus.CAPTURED,
    PaymentStatus.PARTIALLY_REFUNDED,
    PaymentStatus.REFUND_REQUESTED,
)


@pytest.mark.parametrize("status", OPEN)
def test_a_refund_is_requested_before_the_money_was_taken_and_after_and_again(
    status: PaymentStatus,
) -> None:
    decided = given(PASTS[status]).when(RequestRefund(reason="changed my mind"))
    decided.then([REFUNDING])
    assert decided.state.root.status is PaymentStatus.REFUND_REQUESTED


@pytest.mark.parametrize("status", sorted(set(PASTS) - set(OPEN)))
def test_where_nothing_is_left_to_give_back_a_requested_refund_changes_nothing(
    status: PaymentStatus,
) -> None:
    given(PASTS[status]).when(RequestRefund(reason="changed my mind")).then([])


def test_of_a_payment_that_was_not_requested_no_refund_can_be_requested() -> None:
    given([]).when(RequestRefund(reason="x")).then_rejected(
        Code.PAYMENT_NOT_FOUND, "no payment has this id"
    )


def test_a_charge_that_was_under_way_is_captured_and_the_refund_stays_requested() -> None:
    given([REQUESTED, REFUNDING]).when(CapturePayment(amount=400)).then(
        [PaymentCaptured(400)]
    ).then_state(payment(PaymentStatus.REFUND_REQUESTED, 400, at_ms=3))


@pytest.mark.parametrize(
    "past",
    [[*CAPTURED, REFUNDING], [REQUESTED, REFUNDING, PaymentCaptured(1_000)]],
    ids=["before the refund was requested", "after it"],
)
@pytest.mark.parametrize("command", [CapturePayment(), FailPayment(reason="x")], ids=repr)
def test_a_payment_that_was_captured_is_neither_captured_again_nor_failed(
    past: list[PaymentEvent], command: Command
) -> None:
    given(past).when(command).then_rejected(
        Code.INVALID_TRANSITION, "1000 EUR minor units were captured already"
    )


def test_a_payment_of_which_nothing_will_be_taken_has_failed() -> None:
    given([REQUESTED, REFUNDING]).when(FailPayment(reason="never charged")).then(
        [PaymentFailed("never charged")]
    ).then_state(payment(PaymentStatus.FAILED, at_ms=3))


def test_a_requested_refund_ends_when_nothing_is_left() -> None:
    past = [*CAPTURED, REFUNDING]
    given(past).when(RefundPayment(amount=400)).then([PaymentRefunded(400)]).then_state(
        payment(PaymentStatus.REFUND_REQUESTED, 1_000, 400, at_ms=4)
    )
    given(past).when(RefundPayment()).then([PaymentRefunded(1_000)]).then_state(
        payment(PaymentStatus.REFUNDED, 1_000, 1_000, at_ms=4)
    )


@pytest.mark.parametrize("more", [[], [REFUNDING], [PaymentRefunded(1_000)]], ids=repr)
def test_a_capture_is_known_by_the_gateways_reference(more: list[PaymentEvent]) -> None:
    past = [REQUESTED, PaymentCaptured(1_000, "ch_1"), *more]
    given(past).when(CapturePayment(amount=1_000, reference="ch_1")).then([])
    other = given(past).when(CapturePayment(amount=1_000, reference="ch_2")).decision
    assert isinstance(other, Rejection)
    assert other.code is Code.INVALID_TRANSITION


ASKED = PaymentRequested("o-1", 1_000, "EUR", "tok_1")


def test_a_gateway_that_gives_back_all_is_not_asked_when_a_part_went_back_already() -> None:
    given([ASKED, PaymentCaptured(1_000), PaymentRefunded(300)]).when(
        RequestRefund(reason="x")
    ).then_rejected(
        Code.INVALID_TRANSITION,
        "300 EUR minor units went back already, not by the gateway, which gives back all of a charge: "
        "give back the other 700 in the same way",
    )


def test_no_part_goes_back_by_hand_while_the_gateway_gives_back_all() -> None:
    past = [ASKED, PaymentCaptured(1_000), PaymentRefundRequested("x", "tok_1")]
    given(past).when(RefundPayment(amount=999)).then_rejected(
        Code.INVALID_TRANSITION,
        "the gateway is giving back all of it, so no part can go back otherwise",
        "amount",
    )
    given(past).when(RefundPayment(amount=1_000)).then([PaymentRefunded(1_000)])


@pytest.mark.parametrize("amount", [None, 1])
def test_what_was_not_taken_cannot_go_back(amount: int | None) -> None:
    given([REQUESTED, REFUNDING]).when(RefundPayment(amount=amount)).then_rejected(
        Code.INVALID_TRANSITION, "nothing was captured so far, so nothing can go back"
    )


KEPT = PaymentRequested("o-1", 1_000, "EUR", "tok_1", "o-1.5c0pe", "p-1.5c0pe")


def test_what_the_gateway_charged_before_a_payment_was_failed_by_hand_goes_back() -> None:
    """Nobody else would give it back: the order has come to nothing."""
    past = [KEPT, PaymentFailed("by hand")]
    decided = given(past).when(CapturePayment(amount=900, reference="ch_1"))
    decided.then(
        [
            PaymentRefundRequested(CHARGED_ALL_THE_SAME, "tok_1", "p-1.5c0pe"),
            PaymentCaptured(900, "ch_1", refunding=True),
        ]
    )
    state = decided.state.root
    assert (state.status, state.captured) == (PaymentStatus.REFUND_REQUESTED, 900)
    assert isinstance(decided.decision, tuple)
    back = [*past, *decided.decision]
    given(back).when(CapturePayment(amount=900, reference="ch_1")).then([])
    refunded = given(back).when(RefundPayment(amount=900)).state.root
    assert (refunded.status, refunded.refunded) == (PaymentStatus.REFUNDED, 900)


@pytest.mark.parametrize(
    "booked",
    [
        [PaymentCaptured(1)],
        [PaymentCaptured(1_000, "cash")],
        [PaymentCaptured(400, "cash"), REFUNDING],
        [PaymentCaptured(1_000), PaymentRefunded(1_000)],
    ],
    ids=repr,
)
def test_what_the_gateway_charged_beside_another_capture_goes_back(
    booked: list[PaymentEvent],
) -> None:
    """The gateway's word is never refused: refused, the money would be in no book."""
    before = given([KEPT, *booked])
    charged = CapturePayment(amount=900, reference="ch_1", charge="p-1.5c0pe")
    unbooked = PaymentChargeUnbooked(900, "ch_1", "tok_1", "p-1.5c0pe")
    before.when(charged).then([unbooked])
    state, books = before.when(charged).state.root, fold(PAYMENT, [KEPT, *booked]).root
    for name in ("status", "captured", "refunded", "reference"):
        assert getattr(state, name) == getattr(books, name)
    given([KEPT, *booked, unbooked]).when(charged).then([])
    for word in (None, "p-1", "another"):
        claimed = charged.model_copy(update={"charge": word})
        assert isinstance(before.when(claimed).decision, Rejection)


def test_what_the_gateway_charged_beyond_the_request_goes_back() -> None:
    charged = CapturePayment(amount=1_001, reference="ch_1", charge="p-1.5c0pe")
    given([KEPT]).when(charged).then([PaymentChargeUnbooked(1_001, "ch_1", "tok_1", "p-1.5c0pe")])


def test_a_capture_says_whether_it_goes_back_already() -> None:
    refunding = PaymentRefundRequested("x", "tok_1", "p-1.5c0pe")
    given([KEPT]).when(CapturePayment()).then([PaymentCaptured(1_000)])
    given([KEPT, refunding]).when(CapturePayment()).then([PaymentCaptured(1_000, refunding=True)])


def test_a_refund_is_of_the_key_that_was_charged_and_a_scope_is_in_a_new_ones() -> None:
    given([KEPT]).when(RequestRefund(reason="x")).then(
        [PaymentRefundRequested("x", "tok_1", "p-1.5c0pe")]
    )
    given([ASKED]).when(RequestRefund(reason="x")).then([PaymentRefundRequested("x", "tok_1")])
    request = RequestPayment(order_id="o-1", amount=1_000, currency="EUR", token="tok_1")
    scoped = Loaded(None, {}, "p-1", "5c0pe")
    asked = msgspec.structs.replace(ASKED, gateway_key="p-1.5c0pe")
    assert PAYMENT.decide(scoped, request) == (asked,)
    assert PAYMENT.decide(scoped, request.model_copy(update={"token": None})) == (REQUESTED,)


def test_only_its_maker_may_say_that_a_payment_is_its_to_refund() -> None:
    mine = RequestRefund(reason="x", only_if_made_by="o-1.5c0pe")
    assert given([KEPT]).when(mine).state.root.status is PaymentStatus.REFUND_REQUESTED
    for past in ([ASKED], [msgspec.structs.replace(KEPT, made_by="o-1.other")]):
        given(past).when(mine).then_rejected(
            Code.MADE_BY_ANOTHER,
            "the payment was not made by o-1.5c0pe, so it is not touched",
            "only_if_made_by",
        )
