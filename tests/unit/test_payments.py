"""The outbox of payments, its pure parts: what an event asks, what an answer sends, what is committed."""

import asyncio
import itertools
import json
import random
import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import by_command
from payments.asking import FIRST_PAUSE_S, LONGEST_PAUSE_S, Asker, Unreadable, pauses, read
from payments.gateway import Charge, Charged, Declined, Refunded
from payments.lanes import PaymentLanes
from payments.ledger import BARRED
from payments.memory_gateway import MemoryGateway
from payments.reaction import NOT_BOOKED, Followup, Refund, after_charge, after_refund, react
from runtime.progress import Progress
from runtime.records import IncomingRecord
from runtime.sending import Unsendable
from schemas.ids import MAX_ID_LENGTH, is_id
from schemas.payment import (
    PaymentCaptured,
    PaymentChargeUnbooked,
    PaymentFailed,
    PaymentRefundRequested,
    PaymentRequested,
)
from schemas.records import CommandRecord, EventRecord, encode
from tests.support.first_release import check_first_release_takes

CHARGE = Charge("p-1", 1_000, "EUR", "tok_approve")
REFUND = Refund("p-1", "late", 1)


def event(data: msgspec.Struct, **more: Any) -> EventRecord:
    kind = type(data).__name__
    return EventRecord(
        type=kind, id="c-1:0", version=1, occurred_at_ms=1, data=msgspec.Raw(encode(data)), **more
    )


def sent(followups: tuple[Followup, ...]) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, type and data of each command; all of them valid to the aggregate that gets them."""
    found = []
    for followup in followups:
        command = followup.command
        (model,) = (m for m in by_command[command.type].commands if m.__name__ == command.type)
        model.model_validate_json(bytes(command.data))
        assert is_id(command.command_id)
        found.append((command.command_id, command.type, json.loads(bytes(command.data))))
    return found


def test_a_requested_payment_with_a_token_is_charged_under_its_id() -> None:
    assert react("p-1", event(requested("tok_approve"))) == CHARGE


def test_a_requested_refund_with_a_token_is_a_refund_of_that_charge() -> None:
    assert react("p-1", event(PaymentRefundRequested("late", "tok_1"))) == REFUND


@pytest.mark.parametrize(
    "data",
    [
        PaymentRequested("o-1", 1_000, "EUR"),
        PaymentRefundRequested("late"),
        PaymentCaptured(1_000),
        PaymentFailed("x"),
    ],
    ids=repr,
)
def test_nothing_else_is_a_gateways_matter(data: msgspec.Struct) -> None:
    assert react("p-1", event(data)) is None


REQUEST: dict[str, Any] = {
    "order_id": "o-1",
    "amount": 900,
    "currency": "EUR",
    "token": "tok_1",
    "gateway_key": "p-1.5c0pe",
}


@given(
    field=st.sampled_from(["amount", "currency", "token", "gateway_key"]),
    value=st.one_of(
        st.sampled_from((-1, 0, 2**53, 2**63 - 1, 2**63, 10**22)),
        st.sampled_from(("", "eur", "EURO", "a\nb", "k" * 100_000, "\x00", "é", " ")),
        st.text(max_size=5),
        st.integers(),
        st.none(),
    ),
)
def test_what_no_payment_can_have_is_not_asked_at_the_gateway(field: str, value: object) -> None:
    """Anybody may have written it to the history, and a gateway refuses it however often it is asked."""
    data = json.dumps(REQUEST | {field: value}).encode()
    record = {"type": "PaymentRequested", "id": "x:0", "version": 1, "occurred_at_ms": 1}
    text = json.dumps(record).encode()[:-1] + b',"data":' + data + b"}"
    source = IncomingRecord("t.payment.history", 0, 1, 1, b"p-1", text, [])
    try:
        work = read(source)
    except Unreadable:
        return
    if work is None:
        assert field == "token"
        return
    task = work.task
    assert isinstance(task, Charge)
    assert is_id(task.key)
    assert 0 < task.amount < 2**53
    assert re.fullmatch("[A-Z]{3}", task.currency)
    assert 0 < len(task.token) <= 200


def test_a_charge_is_captured_as_the_gateway_says() -> None:
    assert sent(after_charge(CHARGE, Charged(900, "ch_1"))) == [
        (
            "p-1.capture",
            "CapturePayment",
            {"amount": 900, "reference": "ch_1", "charge": "p-1"},
        )
    ]


def test_a_charge_that_is_not_in_the_books_goes_back_and_stays_out_of_them() -> None:
    unbooked = PaymentChargeUnbooked(900, "ch_1", "tok_1", "p-1.5c0pe")
    task = react("p-1", event(unbooked))
    assert task == Refund("p-1.5c0pe", NOT_BOOKED, 1, booked=False)
    assert isinstance(task, Refund)
    assert after_refund(task, Refunded(900, "ch_1")) == ()
    assert after_refund(task, Refunded(0)) == ()


def test_a_declined_charge_has_failed() -> None:
    assert sent(after_charge(CHARGE, Declined("no cover"))) == [
        ("p-1.decline", "FailPayment", {"reason": "no cover"})
    ]


def test_a_refund_tells_of_the_capture_first_and_only_the_refund_is_the_answer() -> None:
    capture, refund = after_refund(REFUND, Refunded(900, "ch_1"))
    (first,) = after_charge(CHARGE, Charged(900, "ch_1"))
    assert (capture.command.type, capture.command.data) == (first.command.type, first.command.data)
    assert (first.answers, capture.answers, refund.answers) == (True, False, True)
    assert sent((refund,)) == [("p-1.refund.1", "RefundPayment", {"amount": 900, "reason": "late"})]


def test_a_refund_of_what_was_never_charged_has_failed() -> None:
    assert sent(after_refund(REFUND, Refunded(0))) == [
        ("p-1.cancel.1", "FailPayment", {"reason": "late"})
    ]


@pytest.mark.parametrize("said", ["", "  ", "x" * 500, "🙂" * 201, " a" + " " * 300])
def test_whatever_a_gateway_says_fits_into_a_command(said: str) -> None:
    assert sent(after_charge(CHARGE, Declined(said)))
    assert sent(after_charge(CHARGE, Charged(1, said)))


def test_a_refund_that_is_requested_again_is_judged_anew() -> None:
    again = Refund("p-1", "late", 5)
    first = after_refund(REFUND, Refunded(900, "ch_1"))
    second = after_refund(again, Refunded(900, "ch_1"))
    assert [name for name, _, _ in sent(first)] == ["p-1.capture.1", "p-1.refund.1"]
    assert [name for name, _, _ in sent(second)] == ["p-1.capture.5", "p-1.refund.5"]
    assert sent(after_refund(again, Refunded(0)))[0][0] == "p-1.cancel.5"


def test_ids_of_commands_are_ids_also_of_the_longest_payment_id_and_differ() -> None:
    payments = ["p", "x" * MAX_ID_LENGTH, "x" * (MAX_ID_LENGTH - 1) + "y"]
    made = {
        command_id
        for payment in payments
        for command_id, _, _ in sent(after_refund(Refund(payment, "late", 3), Refunded(1)))
    }
    assert len(made) == 6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"p-1", b"{"),
        (b"p-1", None),
        (b"p/1", encode(event(PaymentFailed("x")))),
        (None, encode(event(PaymentFailed("x")))),
        (b"\xff", encode(event(PaymentFailed("x")))),
        (b"p-1", encode(event(PaymentRefundRequested("x"), schema_version=2))),
        (b"p-1", b'{"type":"PaymentRequested","id":"a","version":1,"occurred_at_ms":1,"data":{}}'),
        (b"p-1", b'{"type":"PaymentRequested","id":"a","version":1,"occurred_at_ms":1}'),
    ],
)
def test_what_is_no_event_of_a_payment_is_unreadable(key: bytes, value: bytes | None) -> None:
    with pytest.raises(Unreadable):
        read(IncomingRecord("t", 0, 0, 1, key, value, []))


def test_pauses_double_up_to_the_longest_and_are_not_all_the_same() -> None:
    found = list(itertools.islice(pauses(random.Random(1)), 20))
    for number, pause in enumerate(found):
        longest = min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
        assert longest / 2 <= pause <= longest
    assert len(set(found)) == len(found)


@given(st.data())
def test_the_committed_offset_is_that_of_the_first_event_that_has_not_ended(
    data: st.DataObject,
) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 100), min_size=1)))
    progress, begun, ended = Progress(), list[int](), set[int]()
    left = list(offsets)
    while left or len(ended) < len(begun):
        open_ = [offset for offset in begun if offset not in ended]
        if left and (not open_ or data.draw(st.booleans())):
            begun.append(left.pop(0))
            progress.begin(begun[-1])
        else:
            ended.add(offset := data.draw(st.sampled_from(open_)))
            progress.end(offset)
        open_ = [offset for offset in begun if offset not in ended]
        assert progress.unfinished == len(open_)
        assert progress.due() == (min(open_) if open_ else begun[-1] + 1)
    progress.committed(offsets[-1] + 1)
    assert progress.due() is None


def test_of_a_partition_of_which_nothing_was_read_nothing_is_committed() -> None:
    assert Progress().due() is None


class Recorder:
    """Where commands and dead letters go in these tests; ``open`` says whether the broker answers."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.records: list[CommandRecord] = []
        self.letters: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
        del event_id, source
        await self.open.wait()
        self.commands.append(followup.command.command_id)
        self.records.append(followup.command)

    async def dead_letter(self, source: IncomingRecord, code: str, cause: Exception) -> None:
        del source, cause
        await self.open.wait()
        self.letters.append(code)


PLACE = ("history", 0)


class Bench:
    """Lanes on the in-memory gateway, with one partition whose offsets count up by themselves."""

    def __init__(self) -> None:
        self.gateway = MemoryGateway()
        self.sender = Recorder()
        self.lanes = PaymentLanes(Asker(self.gateway, self.sender))
        self.lanes.own([PLACE])
        self._offsets = itertools.count()

    def happens(self, payment_id: str, data: msgspec.Struct) -> None:
        value = encode(event(data))
        self.take(payment_id.encode(), value)

    def take(self, key: bytes, value: bytes) -> None:
        self.lanes.take(IncomingRecord(*PLACE, next(self._offsets), 1, key, value, []))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - nothing tells a test
                await asyncio.sleep(0.005)

    async def until_ended(self) -> None:
        await self.until(lambda: self.lanes.unfinished == 0)


def requested(token: str, amount: int = 1_000) -> PaymentRequested:
    return PaymentRequested("o-1", amount, "EUR", token)


def in_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """The test on an event loop of its own."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@in_a_loop
async def test_a_refund_follows_its_charge_in_order() -> None:
    bench = Bench()
    bench.happens("p-1", requested("tok_slow_50"))
    await bench.until(lambda: bench.gateway.ledger.book().charges)
    bench.happens("p-1", PaymentRefundRequested("late", "tok_slow_50"))
    await bench.until_ended()
    assert bench.sender.commands == ["p-1.capture", "p-1.capture.1", "p-1.refund.1"]
    assert bench.lanes.due() == {PLACE: 2}


@in_a_loop
async def test_of_a_payment_that_the_first_release_began_its_processors_take_every_command() -> (
    None
):
    bench = Bench()
    bench.happens("p-1", requested("tok_approve"))
    bench.happens("p-2", requested("tok_decline"))
    await bench.until_ended()
    bench.happens("p-1", PaymentRefundRequested("late", "tok_approve"))
    await bench.until_ended()
    for command in bench.sender.records:
        check_first_release_takes("payment", command)
    taken = {command.type for command in bench.sender.records}
    assert taken == {"CapturePayment", "FailPayment", "RefundPayment"}


@in_a_loop
async def test_a_capture_names_its_charge_where_the_gateways_key_is_the_payments_own() -> None:
    bench = Bench()
    bench.happens("p-1", PaymentRequested("o-1", 1_000, "EUR", "tok_approve", None, "p-1.5c0pe"))
    await bench.until_ended()
    (capture,) = bench.sender.records
    assert json.loads(bytes(capture.data))["charge"] == "p-1.5c0pe"


@in_a_loop
async def test_a_stuck_payment_holds_up_nobody_but_the_committed_offset() -> None:
    bench = Bench()
    bench.happens("p-1", PaymentCaptured(1))
    bench.happens("stuck", requested("tok_down"))
    bench.happens("p-2", requested("tok_approve"))
    bench.happens("p-3", requested("tok_decline"))
    await bench.until(lambda: bench.lanes.unfinished == 1)
    assert sorted(bench.sender.commands) == ["p-2.capture", "p-3.decline"]
    assert bench.lanes.due() == {PLACE: 1}
    bench.gateway.mend()
    await bench.until_ended()
    assert bench.sender.commands[2:] == ["stuck.capture"]
    assert bench.lanes.due() == {PLACE: 4}


@in_a_loop
async def test_a_charge_without_an_answer_is_given_up_for_the_refund_that_waits_behind_it() -> None:
    bench = Bench()
    bench.happens("p-1", requested("tok_down"))
    await asyncio.sleep(0.05)
    bench.happens("p-1", PaymentRefundRequested("late", "tok_down"))
    await bench.until_ended()
    assert bench.sender.commands == ["p-1.cancel.1"]
    assert await bench.gateway.charge(Charge("p-1", 1_000, "EUR", "tok_down")) == Declined(BARRED)


@in_a_loop
async def test_an_offset_is_due_when_the_broker_has_the_command_and_not_when_the_gateway_answered() -> (
    None
):
    bench = Bench()
    bench.sender.open.clear()
    bench.happens("p-1", requested("tok_approve"))
    await bench.until(lambda: bench.gateway.ledger.book().charges)
    await asyncio.sleep(0.02)
    assert bench.lanes.due() == {PLACE: 0}
    bench.sender.open.set()
    await bench.until_ended()
    assert bench.lanes.due() == {PLACE: 1}


@in_a_loop
async def test_what_cannot_be_followed_is_a_dead_letter_and_holds_up_nobody() -> None:
    bench = Bench()
    bench.take(b"p-1", b"nonsense")
    bench.happens("p-1", requested("tok_approve"))
    await bench.until(lambda: bench.sender.commands)
    bench.happens("p-1", requested("tok_approve", amount=2))
    bench.happens("p-2", requested("tok_approve"))
    await bench.until_ended()
    assert bench.sender.letters == ["unreadable", "key_reused"]
    assert bench.sender.commands == ["p-1.capture", "p-2.capture"]


@in_a_loop
async def test_whatever_stands_in_the_history_is_set_aside_and_the_next_payment_goes_on() -> None:
    bench = Bench()
    deep = b'{"type":"PaymentRequested","id":"a","version":1,"occurred_at_ms":1,"data":?}'
    hostile = (b"", b"\xff", b'{"version":0}', b"[" * 100_000, deep.replace(b"?", b"[" * 100_000))
    for value in hostile:
        bench.take(b"p-1", value)
    bench.take(b"\xff" * 1_000_000, encode(event(requested("tok_approve"))))
    assert bench.lanes.held_bytes > 1_000_000
    bench.happens("p-1", requested("tok_approve"))
    await bench.until_ended()
    assert bench.sender.letters == ["unreadable"] * (len(hostile) + 1)
    assert bench.sender.commands == ["p-1.capture"]
    assert bench.lanes.held_bytes == 0


@in_a_loop
async def test_a_command_that_no_broker_takes_is_a_dead_letter_of_its_event() -> None:
    class Refusing(Recorder):
        async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
            raise Unsendable("too large")

    bench = Bench()
    bench.sender = Refusing()
    bench.lanes = PaymentLanes(Asker(bench.gateway, bench.sender))
    bench.lanes.own([PLACE])
    bench.happens("p-1", requested("tok_approve"))
    await bench.until_ended()
    assert bench.sender.letters == ["too_large"]


@in_a_loop
async def test_a_bug_in_an_adapter_is_a_dead_letter() -> None:
    bench = Bench()
    bench.gateway.ledger.close()
    bench.happens("p-1", requested("tok_approve"))
    await bench.until_ended()
    assert bench.sender.letters == ["internal_error"]


@in_a_loop
async def test_of_a_partition_that_went_nothing_more_is_sent_and_nothing_is_due() -> None:
    bench = Bench()
    bench.happens("p-1", requested("tok_slow_100"))
    await bench.until(lambda: bench.gateway.ledger.book().charges)
    bench.lanes.drop([PLACE])
    bench.happens("p-2", requested("tok_approve"))
    await asyncio.sleep(0.2)
    assert bench.sender.commands == []
    assert bench.lanes.due() == {}
    assert bench.lanes.unfinished == 0
    assert not bench.lanes.failed.done()


@pytest.mark.parametrize(
    ("data", "more"),
    [
        (REQUEST | {"order_id": "o\n1"}, {}),
        (REQUEST | {"token": "   "}, {}),
        (REQUEST | {"gateway_key": "p-2.5c0pe"}, {}),
        (REQUEST | {"gateway_key": "p-1."}, {}),
        (REQUEST, {"id": "e" * 100_000}),
        (REQUEST, {"version": 0}),
    ],
)
def test_an_event_that_no_payment_can_have_is_unreadable(
    data: dict[str, Any], more: dict[str, Any]
) -> None:
    record = {"type": "PaymentRequested", "id": "x:0", "version": 1, "occurred_at_ms": 1}
    value = json.dumps(record | {"data": data} | more).encode()
    with pytest.raises(Unreadable):
        read(IncomingRecord("t", 0, 0, 1, b"p-1", value, []))


def test_an_event_with_the_key_of_another_payment_is_not_asked_at_the_gateway() -> None:
    """It would have the money of a real order given back, or charged twice."""
    for forged in (
        PaymentRequested("o-1", 900, "EUR", "tok_1", gateway_key="p-1.5c0pe"),
        PaymentRefundRequested("late", "tok_1", "p-1.5c0pe"),
        PaymentChargeUnbooked(900, "ch_1", "tok_1", "p-1.5c0pe"),
    ):
        assert react("p-1", event(forged)) is not None
        for thief in ("p-2", "p", "p-1.5c0pe", "p-10"):
            with pytest.raises(msgspec.ValidationError):
                react(thief, event(forged))
