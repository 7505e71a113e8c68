"""One payment at a gateway under every interleaving: what was taken is what the order owes, or went back.

The pure core alone: the aggregate's decide and evolve, what the outbox makes of events and answers, and
the gateway in memory. Commands and tasks keep their order, as on Kafka; between the two anything may happen,
a crash that asks or sends again, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from commands.aggregate import Loaded
from commands.payment import PAYMENT, FailPayment, RequestPayment, RequestRefund
from payments.gateway import Charge, GatewayUnavailable
from payments.memory_gateway import MemoryGateway
from payments.reaction import Followup, Refund, Task, after_charge, after_refund, react
from sagas.create_order import PROCESS_PAYMENT
from sagas.definition import Answer, AnswerEvent, Done, Reading, Refused, Waiting
from schemas.payment import PaymentState, PaymentStatus
from schemas.records import EventRecord, encode
from schemas.rejections import Rejection

AMOUNT: Final = 900
TOKENS: Final = ("tok_approve", "tok_approve", "tok_drop", "tok_flaky", "tok_decline", "tok_down")
MODELS: Final = {model.__name__: model for model in PAYMENT.commands}


class Sent(msgspec.Struct):
    """A command on its way. ``answers``: the saga that has asked for the payment hears what came of it."""

    kind: str
    data: Mapping[str, Any]
    command_id: str | None
    answers: bool


class Asked(msgspec.Struct):
    """What the outbox has to ask. ``answers``: it follows from what the saga has asked for."""

    task: Task
    answers: bool


class Money(RuleBasedStateMachine):
    """A payment that a saga has asked for, with people who send commands by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway = MemoryGateway()
        self.payment = Loaded(None, {}, "p-1", "5c0pe")
        self.version = 0
        self.inbox: deque[Sent] = deque()
        self.tasks: deque[Asked] = deque()
        self.decided: dict[str, bool] = {}
        self.reading: Reading = Waiting()
        self.refund_ordered = False
        self.otherwise = False
        """Somebody has booked what the gateway has not done."""

    @property
    def state(self) -> PaymentState:
        state: PaymentState = self.payment.root
        return state

    @initialize(token=st.sampled_from(TOKENS))
    def requested(self, token: str) -> None:
        request = RequestPayment(order_id="o-1", amount=AMOUNT, currency="GBP", token=token)
        self.inbox.append(Sent("RequestPayment", request.model_dump(), "s-1", True))
        self.deliver()

    @precondition(lambda self: self.inbox)
    @rule()
    def deliver(self) -> None:
        """The processor decides the next command; one that was decided before has no effect."""
        sent = self.inbox.popleft()
        if sent.command_id in self.decided:
            self._hear(sent, self.decided[sent.command_id], (), repeated=True)
            return
        command = MODELS[sent.kind].model_validate(sent.data, strict=False)
        events = PAYMENT.decide(self.payment, command)
        accepted = not isinstance(events, Rejection)
        if sent.command_id is not None:
            self.decided[sent.command_id] = accepted
        if isinstance(events, Rejection):
            self._hear(sent, False, (), repeated=False)
            return
        if sent.kind == "RequestRefund" and events:
            self.refund_ordered = True
        for event in events:
            self.version += 1
            root = PAYMENT.evolve(self.payment, event, self.version).root
            self.payment = Loaded(root, {}, self.payment.id, self.payment.scope)
            self._follow(event, sent.answers)
        self._hear(sent, True, events, repeated=False)

    def _follow(self, event: msgspec.Struct, answers: bool) -> None:
        record = EventRecord(
            type=type(event).__name__,
            id=f"e-{self.version}",
            version=self.version,
            occurred_at_ms=1,
            data=msgspec.Raw(encode(event)),
        )
        task = react("p-1", record)
        if task is not None:
            self.tasks.append(Asked(task, answers))

    def _hear(
        self, sent: Sent, accepted: bool, events: tuple[msgspec.Struct, ...], *, repeated: bool
    ) -> None:
        """What the saga makes of the first answer that decides its step."""
        if sent.answers and isinstance(self.reading, Waiting):
            told = tuple(
                AnswerEvent(type(each).__name__, msgspec.to_builtins(each)) for each in events
            )
            answer = Answer(sent.kind, accepted, "x", "x", told, repeated)
            self.reading = PROCESS_PAYMENT.read(answer)
            if isinstance(self.reading, Done):
                assert self.state.status is PaymentStatus.CAPTURED, "paid, and going back"
                assert self.state.unbooked is None
            if isinstance(self.reading, Refused) and self.reading.to_undo:
                self.refunded_on_request()

    @precondition(lambda self: isinstance(self.reading, Waiting))
    @rule()
    def timed_out(self) -> None:
        """The saga waits no longer, and has it refunded, whatever has become of it."""
        self.reading = Refused("timed_out", "")
        self.refunded_on_request()

    @precondition(lambda self: self.tasks)
    @rule(crash=st.booleans())
    def ask(self, crash: bool) -> None:
        """The outbox asks the gateway; after a ``crash`` it will ask, and send, once more."""
        asked = self.tasks[0]
        try:
            followups = asyncio.run(self._answer(asked.task))
        except GatewayUnavailable:
            if isinstance(asked.task, Charge) and any(
                isinstance(each.task, Refund) for each in self.tasks
            ):
                self.tasks.popleft()
            return
        for each in followups:
            data = msgspec.json.decode(each.command.data)
            answers = asked.answers and each.answers
            self.inbox.append(Sent(each.command.type, data, each.command.command_id, answers))
        if not crash:
            self.tasks.popleft()

    async def _answer(self, task: Task) -> tuple[Followup, ...]:
        if isinstance(task, Charge):
            return after_charge(task, await self.gateway.charge(task))
        return after_refund(task, await self.gateway.refund(task.key))

    @rule()
    def failed_by_hand(self) -> None:
        self.inbox.append(Sent("FailPayment", FailPayment(reason="x").model_dump(), None, False))

    @rule()
    def refunded_on_request(self) -> None:
        request = RequestRefund(reason="x")
        self.inbox.append(Sent("RequestRefund", request.model_dump(), None, False))

    @precondition(lambda self: self.gateway.ledger.book().charges)
    @rule()
    def captured_by_hand(self) -> None:
        """Somebody has seen the charge at the gateway, and reports it."""
        (charge,) = self.gateway.ledger.book().charges
        data = {"amount": charge.amount, "reference": charge.reference}
        self.inbox.append(Sent("CapturePayment", data, None, False))

    @rule(
        amount=st.none() | st.sampled_from((1, 400, AMOUNT)),
        reference=st.none() | st.just("cash"),
    )
    def captured_otherwise(self, amount: int | None, reference: str | None) -> None:
        """Somebody books money that the gateway knows nothing of, while it may be charging."""
        self.otherwise = True
        data = {"amount": amount, "reference": reference}
        self.inbox.append(Sent("CapturePayment", data, None, False))

    @rule(amount=st.none() | st.sampled_from((1, 400)))
    def gone_back_otherwise(self, amount: int | None) -> None:
        """Somebody books that money went back."""
        self.otherwise = True
        self.inbox.append(Sent("RefundPayment", {"amount": amount, "reason": None}, None, False))

    @rule()
    def mended(self) -> None:
        self.gateway.mend()

    def teardown(self) -> None:
        if self.payment.root is None:
            return
        self.gateway.mend()
        while self.inbox or self.tasks:
            while self.inbox:
                self.deliver()
            if self.tasks:
                self.ask(crash=False)
        book = self.gateway.ledger.book()
        assert len(book.charges) <= 1
        assert len(book.refunds) <= 1
        left = sum(each.amount for each in book.charges) - sum(each.amount for each in book.refunds)
        assert left in (0, AMOUNT)
        if self.otherwise:
            charged = {each.reference for each in book.charges}
            assert not left or self.state.reference in charged, "money that no book knows of"
            assert not charged or charged & {self.state.reference, self.state.unbooked}
            return
        assert left == self.state.captured - self.state.refunded, "the ledger is the gateway's"
        if isinstance(self.reading, Done) and not self.refund_ordered:
            assert left == AMOUNT, "the order goes on as paid"
        if isinstance(self.reading, Refused) or self.refund_ordered:
            assert left == 0, "the order comes to nothing"


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=500, stateful_step_count=25, deadline=None)
