"""What a payment gateway has to do for the outbox: the contract of `payments.gateway`, as sentences.

The same suite runs on the in-memory gateway and, through the HTTP adapter, on the simulated gateway in
a process of its own. It is the list of what an adapter of a real provider needs: write it, add it to
``SUBJECTS`` with that provider's test tokens, and it is done when all of this passes.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from payments.gateway import (
    Charge,
    Charged,
    Declined,
    GatewayUnavailable,
    KeyReused,
    PaymentGateway,
    Refunded,
    RequestRefused,
)
from payments.http_gateway import REFUSALS, HttpGateway
from payments.ledger import Book, Ledger
from payments.memory_gateway import MemoryGateway
from tests.support.gateway import GatewayProcess

TIMEOUT_MS = 5_000


class InMemory:
    """The gateway without a network."""

    def __init__(self) -> None:
        self._gateway = MemoryGateway()

    @asynccontextmanager
    async def port(self) -> AsyncIterator[PaymentGateway]:
        yield self._gateway

    def book(self) -> Book:
        return self._gateway.ledger.book()

    def mend(self) -> None:
        self._gateway.mend()


class OverHttp:
    """The gateway as a process, and the adapter to it."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process
        self.book = process.book
        self.mend = process.mend

    @asynccontextmanager
    async def port(self, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[PaymentGateway]:
        async with HttpGateway(self.process.url, timeout_ms) as gateway:
            yield gateway


Subject = InMemory | OverHttp
SUBJECTS = ("memory", "http")


@pytest.fixture
def over_http(tmp_path: Path) -> Iterator[OverHttp]:
    with GatewayProcess(tmp_path / "home", tmp_path / "gateway.log") as process:
        yield OverHttp(process)


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = (
        InMemory() if request.param == "memory" else request.getfixturevalue("over_http")
    )
    return found


def ask(subject: Subject, *calls: Callable[[PaymentGateway], Coroutine[Any, Any, Any]]) -> Any:
    """The calls one after the other through one port; gives the last one's answer."""

    async def run() -> Any:
        answer = None
        async with subject.port() as gateway:
            for call in calls:
                answer = await call(gateway)
        return answer

    return asyncio.run(run())


def charging(
    token: str, key: str = "p-1", amount: int = 1_000, currency: str = "EUR"
) -> Callable[[PaymentGateway], Coroutine[Any, Any, Charged | Declined]]:
    return lambda gateway: gateway.charge(Charge(key, amount, currency, token))


def refunding(
    key: str = "p-1",
) -> Callable[[PaymentGateway], Coroutine[Any, Any, Refunded]]:
    return lambda gateway: gateway.refund(key)


def movements(subject: Subject) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Key and amount of every charge and every refund there was."""
    book = subject.book()
    return (
        [(entry.key, entry.amount) for entry in book.charges],
        [(entry.key, entry.amount) for entry in book.refunds],
    )


ONE: list[tuple[str, int]] = [("p-1", 1_000)]


def test_a_charge_takes_the_money_once_however_often_it_is_asked(subject: Subject) -> None:
    first = ask(subject, charging("tok_approve"))
    assert isinstance(first, Charged)
    assert first.amount == 1_000
    assert ask(subject, charging("tok_approve"), charging("tok_approve")) == first
    assert movements(subject) == (ONE, [])


def test_the_same_charge_asked_many_times_at_once_is_one(subject: Subject) -> None:
    async def at_once(gateway: PaymentGateway) -> list[Charged | Declined]:
        return await asyncio.gather(*(charging("tok_slow_100")(gateway) for _ in range(20)))

    answers = ask(subject, at_once)
    assert len(set(answers)) == 1
    assert movements(subject) == (ONE, [])


def test_another_key_is_another_charge(subject: Subject) -> None:
    one, two = ask(subject, charging("tok_approve")), ask(subject, charging("tok_approve", "p-2"))
    assert one.reference != two.reference
    assert movements(subject) == ([*ONE, ("p-2", 1_000)], [])


@pytest.mark.parametrize("key", ["two words", "A.b_c:d+e@f", "x" * 128])
def test_every_payment_id_is_a_key(subject: Subject, key: str) -> None:
    assert isinstance(ask(subject, charging("tok_approve", key)), Charged)
    assert ask(subject, refunding(key)).amount == 1_000


@pytest.mark.parametrize("token", ["tok_decline", "nobody knows this"])
def test_what_was_declined_once_is_declined_for_ever(subject: Subject, token: str) -> None:
    first = ask(subject, charging(token))
    assert isinstance(first, Declined)
    assert first.reason
    subject.mend()
    assert ask(subject, charging(token)) == first
    assert movements(subject) == ([], [])


@pytest.mark.parametrize("first", ["tok_approve", "tok_decline"])
@pytest.mark.parametrize(
    "other",
    [
        charging("tok_approve", amount=999),
        charging("tok_approve", currency="USD"),
        charging("tok_slow_1"),
    ],
    ids=["amount", "currency", "token"],
)
def test_another_charge_under_the_same_key_is_refused_and_changes_nothing(
    subject: Subject, first: str, other: Any
) -> None:
    answer = ask(subject, charging(first))
    with pytest.raises(KeyReused):
        ask(subject, other)
    assert ask(subject, charging(first)) == answer


def test_a_refund_gives_back_all_that_was_charged_once(subject: Subject) -> None:
    charged = ask(subject, charging("tok_approve"))
    back = ask(subject, refunding())
    assert back == Refunded(1_000, charged.reference)
    assert ask(subject, refunding(), refunding()) == back
    assert movements(subject) == (ONE, ONE)


def test_a_charge_that_was_refunded_is_still_that_charge_and_not_a_new_one(
    subject: Subject,
) -> None:
    charged = ask(subject, charging("tok_approve"))
    assert ask(subject, refunding(), charging("tok_approve")) == charged
    assert movements(subject) == (ONE, ONE)


def test_a_refund_of_what_was_not_charged_bars_the_key(subject: Subject) -> None:
    assert ask(subject, refunding()) == Refunded(0)
    barred = ask(subject, charging("tok_approve"))
    assert isinstance(barred, Declined)
    assert ask(subject, charging("tok_approve"), refunding()) == Refunded(0)
    assert ask(subject, charging("tok_approve")) == barred
    assert movements(subject) == ([], [])


def test_a_refund_of_what_was_declined_gives_nothing_back(subject: Subject) -> None:
    declined = ask(subject, charging("tok_decline"))
    assert ask(subject, refunding()) == Refunded(0)
    assert ask(subject, charging("tok_decline")) == declined


@pytest.mark.parametrize("token", ["tok_drop", "tok_flaky"])
def test_an_answer_that_is_not_known_is_found_out_with_the_same_key(
    subject: Subject, token: str
) -> None:
    tries = 0

    async def until_known(gateway: PaymentGateway) -> Charged | Declined:
        nonlocal tries
        while True:
            tries += 1
            try:
                return await charging(token)(gateway)
            except GatewayUnavailable:
                assert tries < 5

    assert isinstance(ask(subject, until_known), Charged)
    assert tries == {"tok_drop": 2, "tok_flaky": 3}[token]
    assert movements(subject) == (ONE, [])


def test_a_charge_whose_answer_was_lost_can_be_refunded(subject: Subject) -> None:
    with pytest.raises(GatewayUnavailable):
        ask(subject, charging("tok_drop"))
    assert ask(subject, refunding()).amount == 1_000
    assert movements(subject) == (ONE, ONE)


def test_while_a_call_with_the_key_is_under_way_another_is_not_known_and_asked_again(
    subject: Subject,
) -> None:
    async def meanwhile(gateway: PaymentGateway) -> tuple[Any, Any]:
        first = asyncio.create_task(charging("tok_busy_1000")(gateway))
        refused = 0
        while not first.done():
            for call in (charging("tok_busy_1000"), refunding("p-1")):
                try:
                    await asyncio.sleep(0.05)
                    if first.done() or not subject.book().charges:
                        continue
                    await call(gateway)
                    assert first.done()
                except GatewayUnavailable:
                    refused += 1
        assert refused
        return await first, await charging("tok_busy_1000")(gateway)

    first, again = ask(subject, meanwhile)
    assert isinstance(first, Charged)
    assert again == first
    assert movements(subject)[0] == ONE


def test_a_gateway_that_is_down_takes_nothing_until_it_is_mended(subject: Subject) -> None:
    with pytest.raises(GatewayUnavailable):
        ask(subject, charging("tok_down"))
    assert movements(subject) == ([], [])
    subject.mend()
    assert isinstance(ask(subject, charging("tok_down")), Charged)


def test_a_refund_that_fails_gives_nothing_back_until_it_succeeds(subject: Subject) -> None:
    ask(subject, charging("tok_refund_down"))
    with pytest.raises(GatewayUnavailable):
        ask(subject, refunding())
    assert movements(subject) == (ONE, [])
    subject.mend()
    assert ask(subject, refunding()).amount == 1_000
    assert movements(subject) == (ONE, ONE)


# What only a gateway in a process of its own can do.


def test_a_gateway_killed_between_the_charge_and_its_answer_has_charged(
    over_http: OverHttp,
) -> None:
    process = over_http.process

    async def until_charged(gateway: PaymentGateway) -> None:
        call = asyncio.create_task(charging("tok_slow_60000")(gateway))
        while not await asyncio.to_thread(process.get, "/charges/p-1"):
            assert not call.done()
        await asyncio.to_thread(process.kill)
        with pytest.raises(GatewayUnavailable):
            await call

    ask(over_http, until_charged)
    process.start_anew()
    answer = ask(over_http, charging("tok_slow_60000"))
    assert [answer.reference] == [entry.reference for entry in over_http.book().charges]


def test_a_killed_gateway_forgets_no_answer(over_http: OverHttp) -> None:
    calls = [charging("tok_approve"), charging("tok_decline", "p-2"), refunding("p-3")]
    calls += [charging("tok_approve", "p-4"), refunding("p-4"), charging("tok_approve", "p-3")]
    before = [ask(over_http, call) for call in calls]
    over_http.process.kill()
    with pytest.raises(GatewayUnavailable):
        ask(over_http, calls[0])
    over_http.process.start_anew()
    assert [ask(over_http, call) for call in calls] == before
    assert movements(over_http) == ([*ONE, ("p-4", 1_000)], [("p-4", 1_000)])


def test_an_answer_that_takes_too_long_is_not_known(over_http: OverHttp) -> None:
    async def impatient() -> None:
        async with over_http.port(timeout_ms=200) as gateway:
            with pytest.raises(GatewayUnavailable):
                await charging("tok_slow_2000")(gateway)
            assert isinstance(await charging("tok_slow_2000")(gateway), Charged)

    asyncio.run(impatient())
    assert movements(over_http) == (ONE, [])


def test_two_gateways_do_not_share_a_ledger(over_http: OverHttp, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="one gateway a home"):
        GatewayProcess(tmp_path / "home", tmp_path / "second.log")
    assert over_http.process.stop() == 0
    Ledger.on_disk(tmp_path / "home" / "gateway" / "ledger.sqlite").close()


# What the adapter makes of answers that no gateway should give.


@pytest.fixture
def says(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """A server that answers every request with these bytes and closes; gives its URL."""
    del tmp_path
    sockets: list[socket.socket] = []

    def serve(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def loop() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in sockets:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def http(status: int, body: bytes = b"{}") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


NOT_KNOWN = {
    "nothing": b"",
    "no HTTP": b"hello\r\n\r\n",
    "half an answer": http(200, b'{"amount": 1000, "reference": "r"}')[:-5],
    **{
        f"HTTP {status}": http(status)
        for status in (301, 401, 403, 404, 408, 409, 429, 500, 502, 503)
    },
    "no JSON": http(200, b"<html>"),
    "other JSON": http(200, b'{"id": 7}'),
    "another type": http(200, b'{"amount": "1000", "reference": "r"}'),
    "broken UTF-8": http(200, b'{"amount": 1000, "reference": "\xff"}'),
    "more than was asked": http(200, b'{"amount": 1001, "reference": "r"}'),
    "less than nothing": http(200, b'{"amount": -1, "reference": "r"}'),
    "a decline without a reason": http(402, b"{}"),
}


@pytest.mark.parametrize("answer", NOT_KNOWN)
def test_an_answer_that_makes_no_sense_is_not_known(
    says: Callable[[bytes], str], answer: str
) -> None:
    async def run() -> None:
        async with HttpGateway(says(NOT_KNOWN[answer]), TIMEOUT_MS) as gateway:
            with pytest.raises(GatewayUnavailable):
                await charging("tok_approve")(gateway)
            if answer != "more than was asked":
                with pytest.raises(GatewayUnavailable):
                    await gateway.refund("p-1")

    asyncio.run(run())


@pytest.mark.parametrize("status", sorted(REFUSALS))
def test_a_request_that_is_refused_is_not_to_be_asked_again(
    says: Callable[[bytes], str], status: int
) -> None:
    async def run() -> None:
        async with HttpGateway(says(http(status)), TIMEOUT_MS) as gateway:
            with pytest.raises(RequestRefused, match=str(status)):
                await charging("tok_approve")(gateway)
            with pytest.raises(RequestRefused, match=str(status)):
                await gateway.refund("p-1")

    asyncio.run(run())


def test_a_request_that_cannot_be_sent_is_refused(says: Callable[[bytes], str]) -> None:
    async def run() -> None:
        async with HttpGateway(says(http(200)), TIMEOUT_MS) as gateway:
            with pytest.raises(RequestRefused):
                await gateway.refund("a\nb")

    asyncio.run(run())


def test_only_422_is_a_key_that_was_reused(says: Callable[[bytes], str]) -> None:
    async def run() -> None:
        async with HttpGateway(says(http(422)), TIMEOUT_MS) as gateway:
            with pytest.raises(KeyReused):
                await charging("tok_approve")(gateway)

    asyncio.run(run())
