"""Webhooks, their pure parts: signatures, the policy, which addresses may be connected to, the gate."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from runtime.records import Headers, IncomingRecord
from runtime.settings import Settings, networks
from schemas.records import encode
from schemas.webhook import WebhookSecret, message_id
from tests.support.receiver import Answer as Said
from tests.support.receiver import Receiver
from tests.support.webhooks import OTHER_SECRET, SECRET
from webhooks.addresses import NOT_GLOBAL, AddressRefused, check
from webhooks.gate import MOST_CALLS, Gate
from webhooks.message import Message, Unreadable, headers_of, message_of
from webhooks.policy import MOST_ATTEMPTS, Answer, Policy, Verdict, judge, seconds_to_wait
from webhooks.posting import Poster

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)
POLICY = Policy(15.0, 5.0)


def record(
    key: bytes | None = b"o-1", headers: Headers | None = None, **fields: Any
) -> IncomingRecord:
    event = {
        "type": "OrderShipped",
        "id": "c-1:0",
        "version": 3,
        "occurred_at_ms": 1_700_000_000_123,
    }
    value = encode({**event, "data": {"tracking": "ä"}, **fields})
    return IncomingRecord("t", 0, 7, 1, key, value, headers or [])


# What is sent


def test_a_message_says_what_happened_to_what_and_when() -> None:
    message = message_of(record(), "order")
    assert message.id == message_id("order", "o-1", 3)
    assert msgspec.json.decode(message.body) == {
        "type": "order.OrderShipped",
        "timestamp": "2023-11-14T22:13:20.123Z",
        "data": {
            "aggregate": "order",
            "id": "o-1",
            "version": 3,
            "event_id": "c-1:0",
            "schema_version": 1,
            "event": {"tracking": "ä"},
        },
    }
    assert message_of(record(), "order") == message


@pytest.mark.parametrize(
    "bad",
    [
        record(key=None),
        record(key=b"\xff"),
        record(key=b"a/b"),
        record(key=b"a\r\nx: y"),
        record(version="3"),
        record(version=0),
        record(version=2**63),
        record(type="x" * 129),
        IncomingRecord("t", 0, 7, 1, b"o-1", b"{", []),
        IncomingRecord("t", 0, 7, 1, b"o-1", None, []),
    ],
    ids=repr,
)
def test_what_is_no_event_is_unreadable(bad: IncomingRecord) -> None:
    with pytest.raises(Unreadable):
        message_of(bad, "order")


def test_an_event_of_a_newer_release_is_passed_on_as_it_is_with_its_version() -> None:
    body = msgspec.json.decode(message_of(record(schema_version=9), "order").body)
    assert (body["data"]["schema_version"], body["data"]["event"]) == (9, {"tracking": "ä"})


@given(st.integers(-(2**62), 2**62))
def test_every_time_that_an_event_can_have_is_written_as_one(at_ms: int) -> None:
    text = msgspec.json.decode(message_of(record(occurred_at_ms=at_ms), "order").body)["timestamp"]
    assert datetime.fromisoformat(text).tzinfo is not None
    assert text.endswith("Z")


def test_conversation_and_trace_go_along_and_nothing_that_could_be_a_header_of_its_own() -> None:
    marks: Headers = [
        ("correlation-id", b"k 1"),
        ("traceparent", b"00-aa\r\nx-evil: 1"),
        ("answer-to", b"s-1/step"),
        ("reply-partition", b"3"),
    ]
    sent = headers_of(message_of(record(headers=marks), "order"), (WebhookSecret(SECRET),), NOW)
    assert sent["correlation-id"] == "k 1"
    assert set(sent) == {
        *("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature"),
        "correlation-id",
    }


def test_the_signature_is_that_of_the_specifications_example() -> None:
    """The vector that the reference implementations share."""
    message = Message(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", "t", "a", "b", 1, b'{"test": 2432232314}', {}, record()
    )
    secret = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sent = headers_of(message, (secret,), datetime.fromtimestamp(1614265330, UTC))
    assert sent["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert sent["webhook-timestamp"] == "1614265330"
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_secret_signs_until_its_time_is_up() -> None:
    now = datetime.now(UTC)
    now_ms = int(now.timestamp() * 1000)
    message = message_of(record(), "order")

    def verified_by(until_ms: int) -> list[str]:
        secrets = (WebhookSecret(OTHER_SECRET), WebhookSecret(SECRET, until_ms))
        sent = headers_of(message, secrets, now)
        found = []
        for secret in (SECRET, OTHER_SECRET):
            try:
                Webhook(secret).verify(message.body, sent)
                found.append(secret)
            except WebhookVerificationError:
                pass
        return found

    assert verified_by(now_ms + 1_000) == [SECRET, OTHER_SECRET]
    assert verified_by(now_ms - 1) == [OTHER_SECRET]


# When it is sent again


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, Verdict.AGAIN) for status in (100, 199, 300, 301, 302, 304, 307, 308)),
        *((status, Verdict.AGAIN) for status in (400, 401, 403, 404, 408, 409, 422, 429)),
        *((status, Verdict.AGAIN) for status in (500, 502, 503, 504, 599)),
        (410, Verdict.STOP),
    ],
)
def test_only_2xx_is_delivered_and_only_410_is_final(status: int, verdict: Verdict) -> None:
    assert judge(Answer(1, status)) is verdict


def test_no_answer_is_asked_for_again_and_a_forbidden_address_is_final() -> None:
    assert judge(Answer(1, error="no answer")) is Verdict.AGAIN
    assert judge(Answer(1, error="no", forbidden=True)) is Verdict.STOP


@given(st.integers(1, 10_000), st.integers())
def test_a_pause_is_any_time_up_to_a_bound_that_doubles_up_to_an_hour(
    attempt: int, seed: int
) -> None:
    bound = POLICY.bound_s(attempt)
    assert bound == min(5.0 * 2 ** min(attempt - 1, 20), 3600.0)
    pause = POLICY.pause_s(attempt, random.Random(seed), Answer(1, 500), NOW)
    assert 0 <= pause <= bound


def test_all_attempts_together_take_some_hours() -> None:
    bounds = sum(POLICY.bound_s(attempt) for attempt in range(1, MOST_ATTEMPTS))
    assert 4 < bounds / 2 / 3600 < 6  # half of each on average


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("9" * 40, 999_999_999_999),
        ("-5", 0),
        ("1.5", 0),
        ("²", 0),
        ("nonsense", 0),
        ("", 0),
        (None, 0),
        (format_datetime(NOW + timedelta(seconds=90.75), usegmt=True), 90.75),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Sun, 01 Mar 2026 12:00:00", 0),  # of no time zone
        ("Sun, 99 Mar 2026 12:00:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float) -> None:
    assert seconds_to_wait(text, NOW) == pytest.approx(seconds, abs=1)


@given(st.text())
def test_no_text_as_retry_after_is_an_error(text: str) -> None:
    assert seconds_to_wait(text, NOW) >= 0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_counts_where_the_status_gives_it_a_meaning_and_has_a_bound(
    status: int,
) -> None:
    chance = random.Random(1)
    assert POLICY.pause_s(1, chance, Answer(1, status, retry_after="100"), NOW) == 100
    assert POLICY.pause_s(1, chance, Answer(1, status, retry_after="999999"), NOW) == 3600
    assert POLICY.pause_s(1, chance, Answer(1, 500, retry_after="100"), NOW) <= 5


# Where it is sent to

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
    "2002:101:101::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        check(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not_refused(address: str) -> None:
    check(address, ())


@pytest.mark.parametrize(
    "text", ["", "example.org", "127.1", "0x7f000001", "2130706433", "1.1.1.1 "]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressRefused):
        check(text, ())


_special = [
    *NOT_GLOBAL,
    *map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")),
    *map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fc00::/7", "::1/128", "::/128")),
]
specials = st.sampled_from(_special).flatmap(
    lambda network: (
        st.ip_addresses(network=network) if network.num_addresses > 1 else st.just(network[0])
    )
)


@given(specials)
def test_no_address_of_a_special_range_passes_in_whatever_way_it_is_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    ways = [str(address), address.exploded]
    if isinstance(address, ipaddress.IPv4Address):
        number = int(address)
        high, low = number >> 16, number & 0xFFFF
        ways += [
            f"::ffff:{address}",
            f"::{address}",
            f"64:ff9b::{address}",
            f"2002:{high:x}:{low:x}::",
        ]
    for way in ways:
        with pytest.raises(AddressRefused):
            check(way, networks("192.0.2.99"))


@given(st.ip_addresses())
def test_whatever_python_takes_for_private_is_refused(address: Any) -> None:
    written_otherwise = ipaddress.ip_network("64:ff9b::/96")
    if address.version == 6 and (address.ipv4_mapped or address in written_otherwise):
        return  # Python calls all of these reserved; what counts is the IPv4 address that they mean
    unsure = address.is_private or address.is_loopback or address.is_link_local
    if unsure or address.is_multicast or address.is_reserved or address.is_unspecified:
        with pytest.raises(AddressRefused):
            check(str(address), ())


@given(specials)
def test_what_is_allowed_by_name_passes(address: Any) -> None:
    check(str(address), networks(str(address)))


def test_an_address_that_is_allowed_passes_in_its_mapped_form_too() -> None:
    check("::ffff:10.1.2.3", networks("10.1.0.0/16, fd00::/8"))
    with pytest.raises(AddressRefused):
        check("::ffff:10.2.2.3", networks("10.1.0.0/16, fd00::/8"))


@pytest.mark.parametrize("bad", ["10.0.0.1/8", "example.org", "0.0.0.0/0", "::/0", "10.0.0.0/33"])
def test_what_is_no_network_or_would_allow_everything_is_refused_at_start(bad: str) -> None:
    with pytest.raises(ValidationError, match="ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS"):
        Settings.model_validate({"ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS": bad})


# How it is sent

LOOPBACK = networks("127.0.0.1")


class Names(AbstractResolver):
    """A resolver whose answer is another one each time; the last one from then on."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for each in found
        ]

    async def close(self) -> None:
        pass


async def posted(
    url: str, *names: list[str], times: int = 1, timeout_s: float = 2.0
) -> list[Answer]:
    async with Poster(timeout_s, LOOPBACK, Names(*names) if names else None) as poster:
        return [await poster.post(url, {"x": "y"}, b"{}") for _ in range(times)]


def test_a_name_that_stands_for_an_allowed_address_at_first_and_for_a_private_one_later_is_refused() -> (
    None
):
    close = Said(200, {"connection": "close"})
    with Receiver(lambda _: close) as receiver:
        url = f"http://rebinding.example:{receiver.port}/in"
        first, second = asyncio.run(posted(url, ["127.0.0.1"], ["127.0.0.3"], times=2))
    assert first.status == 200
    assert second.forbidden
    assert "127.0.0.3" in (second.error or "")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["::ffff:10.0.0.1"]],
)
def test_a_name_of_which_one_address_is_refused_is_refused(addresses: list[str]) -> None:
    with Receiver() as receiver:
        (answer,) = asyncio.run(posted(f"http://mixed.example:{receiver.port}/", addresses))
    assert answer.forbidden
    assert not receiver.received


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0", "169.254.169.254"]
)
def test_an_address_in_the_url_is_checked_as_well(host: str) -> None:
    with Receiver() as receiver:
        (answer,) = asyncio.run(posted(f"http://{host}:{receiver.port}/in"))
    assert answer.forbidden
    assert not receiver.received


@pytest.mark.parametrize("host", ["2130706434", "127.2", "0x7f000002", "0177.0.0.2"])
def test_an_address_that_is_written_as_no_address_leads_nowhere(host: str) -> None:
    with Receiver() as receiver:
        (answer,) = asyncio.run(posted(f"http://{host}:{receiver.port}/in"))
    assert answer.error
    assert not receiver.received


def test_redirects_are_not_followed() -> None:
    with Receiver() as other, Receiver() as receiver:
        receiver.behave = lambda _: Said(307, {"location": other.url})
        (answer,) = asyncio.run(posted(receiver.url))
        assert answer.status == 307
        assert not other.received


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        (answer,) = asyncio.run(posted(receiver.url))
    assert answer.status == 200


def test_a_connection_is_used_again_and_cookies_are_not() -> None:
    with Receiver(lambda _: Said(200, {"set-cookie": "a=b"})) as receiver:
        asyncio.run(posted(receiver.url, times=3))
        assert not any("cookie" in request.headers for request in receiver.received)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::::]/",
        "http://a..example/",
        "http://" + "a" * 300 + ".example/",
        "http://1.1.1.256/",
    ],
)
def test_a_url_that_nobody_can_follow_is_an_answer_like_others(url: str) -> None:
    (answer,) = asyncio.run(posted(url))
    assert answer.error


# How an endpoint is treated that fails


class Bench:
    """A gate, and an endpoint whose calls end when the test says how."""

    def __init__(self) -> None:
        self.gate = Gate(Policy(1.0, 0.001), random.Random(1))
        self.calls: list[asyncio.Future[Answer]] = []

    async def post(self) -> Answer:
        call: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        return await call

    def start(self, count: int) -> list[asyncio.Task[Answer]]:
        return [asyncio.create_task(self.gate.call(self.post)) for _ in range(count)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - nothing tells a test
                await asyncio.sleep(0.002)

    def end(self, status: int) -> None:
        """Of all calls that are under way."""
        for call in self.calls:
            if not call.done():
                call.set_result(Answer(1, status))

    @property
    def under_way(self) -> int:
        return sum(not call.done() for call in self.calls)


async def _those_that_fail_together_count_once_and_one_call_tries_it() -> None:
    bench = Bench()
    waiting = bench.start(40)
    await bench.until(lambda: bench.under_way == MOST_CALLS)
    bench.end(500)
    await bench.until(lambda: bench.under_way == 1)
    assert bench.gate.failures == 1
    await asyncio.sleep(0.05)
    assert bench.under_way == 1
    bench.end(503)
    await bench.until(lambda: bench.gate.failures == 2)
    await bench.until(lambda: bench.under_way == 1)
    bench.end(200)
    await bench.until(lambda: bench.under_way == MOST_CALLS)
    assert bench.gate.failures == 0
    while any(not task.done() for task in waiting):
        bench.end(200)
        await asyncio.sleep(0)


def test_those_that_fail_together_count_once_and_one_call_at_a_time_tries_it() -> None:
    asyncio.run(_those_that_fail_together_count_once_and_one_call_tries_it())
