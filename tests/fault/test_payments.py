"""Payments under faults: whatever is killed, the gateway's ledger and the log say the same of the money."""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

import pytest

from payments.ledger import Book
from runtime import topic_admin
from runtime.client import CommandClient, OutgoingCommand
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.payment import PaymentState, PaymentStatus
from tests.support.commanding import command, eventually
from tests.support.gateway import GatewayProcess
from tests.support.invariants import LogReading, check_log
from tests.support.processes import RoleProcess, environment
from tests.support.topics import read_topic

TOKENS = (
    "tok_approve",
    "tok_decline",
    "tok_unknown",
    "tok_slow_300",
    "tok_slow_1500",
    "tok_drop",
    "tok_flaky",
    "tok_down",
    "tok_refund_down",
)
PAYMENTS = 180
ROUNDS = 5
TIMEOUT_MS = 700
"""Less than the slowest token takes: some answers never come in time."""

SETTLED_WITHIN_S = 90


class Requests:
    """Payments with every token; of two in five the refund is requested, sooner or later."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.tokens: dict[str, str] = {}
        self.amounts: dict[str, int] = {}
        self.refunded: set[str] = set()
        self._later: list[OutgoingCommand] = []

    def some(self, count: int) -> list[OutgoingCommand]:
        """More payments, refunds of some of them, and of some from before."""
        chance, found = self._chance, self._later
        self._later = []
        for _ in range(count):
            number = len(self.tokens)
            payment_id, amount = f"p-{number}", 100 + number
            self.tokens[payment_id] = token = TOKENS[number % len(TOKENS)]
            self.amounts[payment_id] = amount
            found.append(
                command(
                    payment_id,
                    "RequestPayment",
                    order_id="o-1",
                    amount=amount,
                    currency="EUR",
                    token=token,
                )
            )
            if chance.random() < 0.4:
                self.refunded.add(payment_id)
                refund = command(payment_id, "RequestRefund", reason="changed my mind")
                (found if chance.random() < 0.5 else self._later).append(refund)
        return found

    def left(self) -> list[OutgoingCommand]:
        """The refunds that are still to come."""
        return self.some(0)


def payment_states(reading: LogReading) -> dict[str, PaymentState]:
    found = {}
    for payment_id, (_, state) in reading.states["payment"].items():
        assert isinstance(state, PaymentState)
        found[payment_id] = state
    return found


def check_money(
    states: dict[str, PaymentState], book: Book, leave_out: Collection[str] = ()
) -> None:
    """The ledger and the log, movement by movement."""
    charged = Counter(entry.key for entry in book.charges)
    back = Counter(entry.key for entry in book.refunds)
    assert max(charged.values()) == 1, f"charged twice: {charged.most_common(3)}"
    assert max(back.values(), default=1) == 1, f"refunded twice: {back.most_common(3)}"
    paid_by = {state.gateway_key: key for key, state in states.items()}
    states = {key: state for key, state in states.items() if key not in leave_out}
    taken = {paid_by[entry.key]: entry.amount for entry in book.charges}
    given = {paid_by[entry.key]: entry.amount for entry in book.refunds}
    for moved in (taken, given):
        for key in leave_out:
            moved.pop(key, None)
    assert taken == {key: s.captured for key, s in states.items() if s.captured}
    assert given == {key: s.refunded for key, s in states.items() if s.refunded}
    assert sum(taken.values()) == sum(state.captured for state in states.values())
    assert sum(given.values()) == sum(state.refunded for state in states.values())


def check_answers(settings: Settings, reading: LogReading) -> None:
    """What the outbox sent was accepted, all of it, and nothing was set aside."""
    followups = {name for (_, _, one) in reading.outcomes for name in one.split(".")[2:3]}
    assert followups == {"capture", "decline", "refund", "cancel"}
    assert not [each for each in reading.outcomes.values() if not each.accepted]
    assert not read_topic(settings, topics_of(settings).dead_letters)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def env(servers: ServersAddress, prefix: str, home: Path) -> dict[str, str]:
    found = environment(servers, prefix, home, ORDERFLOW_GATEWAY_TIMEOUT_MS=str(TIMEOUT_MS))
    topic_admin.apply(Settings.model_validate(found))
    return found


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings.model_validate(env)


def settled(
    settings: Settings, requests: Requests, may_be_open: Callable[[str, PaymentState], bool]
) -> LogReading:
    """Waits until every payment has ended, but those that may be open; checks the log's invariants."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while True:
        reading = check_log(settings)
        states = payment_states(reading)
        open_ = {
            key: (token, states.get(key))
            for key, token in requests.tokens.items()
            if key not in states
            or not (
                may_be_open(token, states[key]) or has_ended(states[key], key in requests.refunded)
            )
        }
        if not open_:
            return reading
        assert time.monotonic() < deadline, f"still open: {open_}"
        time.sleep(0.5)


def until_assigned(process: RoleProcess) -> None:
    """A killed predecessor's partitions are given to another one when its session has run out."""
    eventually(lambda: "assigned" in process.text())


def has_ended(state: PaymentState, refunded: bool) -> bool:
    """Whether nothing more will happen to it; what is captured and is to go back has not ended."""
    if refunded:
        return state.status in (PaymentStatus.FAILED, PaymentStatus.REFUNDED)
    return state.status in (PaymentStatus.FAILED, PaymentStatus.CAPTURED)


def cannot_end(token: str, state: PaymentState) -> bool:
    """Before the gateway is mended."""
    match token:
        case "tok_down":
            return state.status is PaymentStatus.REQUESTED
        case "tok_refund_down":
            # Perhaps charged, without the log knowing: a charge is given up for its refund.
            return state.status is PaymentStatus.REFUND_REQUESTED
        case _:
            return False


def test_whatever_is_killed_every_payment_is_charged_once_and_the_books_agree(
    settings: Settings, env: dict[str, str], home: Path, tmp_path: Path
) -> None:
    chance, requests = random.Random(5), Requests(3)
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(home, tmp_path / "gateway.log"))
        env["ORDERFLOW_GATEWAY_URL"] = gateway.url
        stack.enter_context(RoleProcess("processors", env, tmp_path / "processor.log"))
        client = stack.enter_context(CommandClient(settings))

        def send(commands: list[OutgoingCommand]) -> None:
            for each in commands:
                client.send(each)
            client.flush()

        for round_ in range(ROUNDS):
            with RoleProcess("payments", env, tmp_path / f"killed-{round_}.log") as process:
                until_assigned(process)
                for _ in range(3):
                    send(requests.some(PAYMENTS // ROUNDS // 3))
                    time.sleep(chance.uniform(0.02, 0.5))
                    if chance.random() < 0.4:
                        gateway.kill()
                        time.sleep(chance.uniform(0, 0.3))
                        gateway.start_anew()
                assert process.running, process.text()
                process.kill()
        one = stack.enter_context(RoleProcess("payments", env, tmp_path / "one.log"))
        send(requests.left())
        until_assigned(one)
        two = stack.enter_context(RoleProcess("payments", env, tmp_path / "two.log"))

        states = payment_states(settled(settings, requests, cannot_end))
        unknown = {key for key, state in states.items() if cannot_end(requests.tokens[key], state)}
        check_money(states, gateway.book(), unknown)
        stuck = {state.status for key, state in states.items() if key not in requests.refunded}
        assert PaymentStatus.REQUESTED in stuck
        by_token = {
            requests.tokens[key]
            for key, state in states.items()
            if state.status is PaymentStatus.CAPTURED
        }
        assert by_token == set(TOKENS) - {"tok_decline", "tok_unknown", "tok_down"}

        gateway.mend()
        reading = settled(settings, requests, lambda _token, _state: False)
        states = payment_states(reading)
        check_money(states, gateway.book())
        check_answers(settings, reading)
        assert {entry.key for entry in gateway.book().charges} >= {
            states[key].gateway_key
            for key, token in requests.tokens.items()
            if token == "tok_down" and key not in requests.refunded
        }
        assert one.stop() == 0, one.text()
        assert two.stop() == 0, two.text()
