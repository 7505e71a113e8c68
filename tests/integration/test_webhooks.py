"""Webhooks between a real Kafka, real processors and a receiver that behaves as badly as receivers do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import Producer

from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import encode
from schemas.webhook import DeliveryResult, WebhookStatus, former_message_id
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment
from tests.support.receiver import OK, Answer, Receiver, by_attempt
from tests.support.topics import Record, read_topic
from tests.support.webhooks import OTHER_SECRET, PATIENT, SECRET, Shop, first_seen
from webhooks import reading


@pytest.fixture(scope="module")
def env(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Processors and the role under one prefix; each test has webhooks and SKUs of its own."""
    home = tmp_path_factory.mktemp("webhooks")
    found = environment(
        servers,
        f"t{time.time_ns():x}",
        home,
        ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS="127.0.0.1/32",
        **PATIENT,
    )
    topic_admin.apply(Settings.model_validate(found))
    with ExitStack() as stack:
        stack.enter_context(RoleProcess("processors", found, home / "processors.log"))
        role = stack.enter_context(RoleProcess("webhooks", found, home / "webhooks.log"))
        yield found
        assert role.stop() == 0, role.text()


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings.model_validate(env)


@pytest.fixture
def shop(settings: Settings) -> Iterator[Shop]:
    with CommandClient(settings) as client:
        shop = Shop(settings, client)
        yield shop
        for webhook_id in shop.webhooks:
            shop.order(webhook_id, "DeleteWebhook")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def hook(request: pytest.FixtureRequest) -> str:
    """An id that no other test has, for a webhook and for the SKUs."""
    return f"w-{time.time_ns():x}"


def everything(receiver: Receiver, shop: Shop) -> bool:
    seen = first_seen([request.event for request in receiver.taken()])
    return all(len(seen.get(sku, [])) == version for sku, version in shop.expected.items())


def test_events_are_delivered_signed_in_order_and_once(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    shop.happens(2, 1, f"{hook}-before")
    before = set(shop.expected)
    shop.expected.clear()
    shop.subscribe(hook, receiver.url)
    shop.happens(5, 6, hook)
    eventually(lambda: everything(receiver, shop))
    events = [request.event for request in receiver.received]
    assert not before & {sku for sku, _ in events}
    assert len(events) == len(set(events))
    assert first_seen(events) == {
        sku: list(range(1, version + 1)) for sku, version in shop.expected.items()
    }
    ids = {(line.aggregate_id, line.version): line.message_id for line in shop.log(hook)}
    assert len(set(ids.values())) == len(ids)
    for request in receiver.received:
        body = request.verify(SECRET)
        sku, version = request.event
        assert request.id == ids[sku, version]
        assert body["type"] == (
            "inventory.ItemRegistered" if version == 1 else "inventory.StockReceived"
        )
        assert body["timestamp"].endswith("Z")
        assert body["data"]["aggregate"] == "inventory"
        assert request.headers["correlation-id"]
    line = shop.log(hook)[-1]
    assert (line.result, line.status, line.attempt) == (DeliveryResult.DELIVERED, 200, 1)
    assert not line.by_hand


def test_only_events_of_the_types_come_and_from_the_beginning_if_so_wished(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    shop.happens(2, 3, hook)
    shop.subscribe(hook, receiver.url, "inventory.ItemRegistered", "user.*", from_beginning=True)
    eventually(lambda: {(f"{hook}-{n}", 1) for n in (0, 1)} <= events_of(receiver))
    assert {request.json["type"] for request in receiver.received} <= {
        *("inventory.ItemRegistered", "user.UserRegistered", "user.UserDeactivated"),
    }


def events_of(receiver: Receiver) -> set[tuple[str, int]]:
    return {request.event for request in receiver.taken()}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Answer(500), "500"),
        (Answer(400), "400"),
        (Answer(302, {"location": "http://169.254.169.254/latest/meta-data/"}), "302"),
        (Answer(307, {"location": "http://10.0.0.1/"}), "307"),
        (Answer(200, after_s=1.2), "no answer within 0.6 s"),
        (Answer(raw=b""), "ServerDisconnectedError"),
        (Answer(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "no HTTP answer: Bad status line"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000), "no HTTP answer: Got more than"),
        (Answer(429, {"retry-after": "0"}), "429"),
        (Answer(503, {"retry-after": "nonsense"}), "503"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_receiver_that_misbehaves_gets_every_event_in_the_end_and_in_order(
    shop: Shop, receiver: Receiver, hook: str, bad: Answer, said: str
) -> None:
    receiver.behave = by_attempt(bad, OK)
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 2, hook)
    eventually(lambda: [r.event for r in receiver.taken() if r.event == (f"{hook}-0", 3)])
    log = shop.log(hook)
    assert [(line.version, line.attempt, line.result.value) for line in log] == [
        (version, attempt, result)
        for version in (1, 2, 3)
        for attempt, result in ((1, "failed"), (2, "delivered"))
    ]
    for line in log[::2]:
        assert said in (line.error or str(line.status))


@pytest.mark.parametrize(
    "slow", [Answer(200, cut=True), Answer(200, trickle_s=3.0)], ids=["cut", "trickle"]
)
def test_the_status_is_the_answer_whatever_becomes_of_the_body(
    shop: Shop, receiver: Receiver, hook: str, slow: Answer
) -> None:
    receiver.behave = lambda _: slow
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 2, hook)
    eventually(lambda: len(shop.log(hook)) == 3, every=0.2)
    assert {line.result for line in shop.log(hook)} == {DeliveryResult.DELIVERED}


def test_one_aggregate_that_is_refused_holds_up_itself_alone(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    receiver.behave = lambda request: Answer(422 if request.event == (f"{hook}-0", 2) else 200)
    shop.subscribe(hook, receiver.url)
    shop.happens(4, 3, hook)
    others = {(f"{hook}-{n}", v) for n in (1, 2, 3) for v in (1, 2, 3, 4)}
    eventually(lambda: others <= events_of(receiver))
    assert (f"{hook}-0", 1) in events_of(receiver)
    assert (f"{hook}-0", 3) not in {request.event for request in receiver.received}


def test_an_event_that_is_never_taken_pauses_the_webhook_and_can_be_skipped(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    poison = (f"{hook}-0", 2)
    receiver.behave = lambda request: Answer(422 if request.event == poison else 200)
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 3, hook)
    eventually(lambda: shop.state(hook).status is WebhookStatus.PAUSED, timeout=60, every=0.3)
    reason = shop.state(hook).pause_reason or ""
    assert "20 attempts failed, the last with HTTP 422" in reason
    assert f"{hook}-0 v2" in reason
    message = former_message_id("inventory", *poison)  # as an order from before an upgrade has it
    shop.order(hook, "SkipWebhookEvent", message_id=message, reason="the receiver has no such SKU")
    shop.order(hook, "ResumeWebhook")
    eventually(lambda: (f"{hook}-0", 4) in events_of(receiver))
    assert poison not in events_of(receiver)
    skipped = [line for line in shop.log(hook) if line.result is DeliveryResult.SKIPPED]
    assert [(line.aggregate_id, line.version) for line in skipped] == [poison]


def test_a_paused_webhook_goes_on_where_it_stood(shop: Shop, receiver: Receiver, hook: str) -> None:
    shop.subscribe(hook, receiver.url)
    shop.happens(2, 1, hook)
    eventually(lambda: everything(receiver, shop))
    time.sleep(1)  # the offsets are committed
    shop.order(hook, "PauseWebhook", reason="moving house")
    time.sleep(1)
    before = len(receiver.received)
    shop.happens(2, 3, hook)
    time.sleep(1)
    assert len(receiver.received) == before
    shop.order(hook, "ResumeWebhook")
    eventually(lambda: everything(receiver, shop))
    events = [request.event for request in receiver.received]
    assert len(events) == len(set(events)), "nothing came twice"


def test_an_endpoint_that_is_gone_is_paused_at_once_and_goes_on_at_a_new_address(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    receiver.behave = lambda _: Answer(410)
    shop.subscribe(hook, receiver.url)
    shop.happens(3, 2, hook)
    eventually(lambda: shop.state(hook).status is WebhookStatus.PAUSED)
    assert "HTTP 410" in (shop.state(hook).pause_reason or "")
    assert not receiver.taken()
    with Receiver() as new:
        shop.order(hook, "UpdateWebhook", url=new.url)
        shop.order(hook, "ResumeWebhook")
        eventually(lambda: everything(new, shop))


def test_an_endpoint_that_is_down_is_tried_by_one_call_at_a_time(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    down = True
    receiver.behave = lambda _: Answer(503) if down else OK
    shop.subscribe(hook, receiver.url)
    shop.happens(60, 1, hook)
    eventually(lambda: len(receiver.received) > 25)
    late = receiver.received[17:]
    assert len(late) < 20 * 2, "as many attempts as the policy has, not as many as there are events"
    down = False
    eventually(lambda: everything(receiver, shop) or shop.state(hook).status == "paused", every=0.3)
    if shop.state(hook).status is WebhookStatus.PAUSED:
        shop.order(hook, "ResumeWebhook")
    eventually(lambda: everything(receiver, shop))


def test_retry_after_is_honoured(shop: Shop, receiver: Receiver, hook: str) -> None:
    receiver.behave = by_attempt(Answer(429, {"retry-after": "1"}), OK)
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 0, hook)
    eventually(lambda: everything(receiver, shop))
    first, second = receiver.received
    assert second.at - first.at >= 1


def test_a_private_address_is_not_connected_to_and_pauses_the_webhook(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    url = f"http://127.0.0.2:{receiver.port}/in"
    shop.subscribe(hook, url)
    shop.happens(1, 0, hook)
    eventually(lambda: shop.state(hook).status is WebhookStatus.PAUSED)
    assert "127.0.0.2 is not a public address" in (shop.state(hook).pause_reason or "")
    assert not receiver.received


def test_an_event_is_delivered_once_more_by_hand_to_a_paused_webhook_too(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 2, hook)
    eventually(lambda: len(shop.log(hook)) == 3, every=0.2)
    shop.order(hook, "PauseWebhook", reason="x")
    again = shop.log(hook)[1]
    place = {"aggregate": "inventory", "partition": again.partition, "offset": again.offset}
    shop.order(hook, "RequestRedelivery", message_id=again.message_id, **place)
    eventually(lambda: len(receiver.received) == 4)
    first, second = (r for r in receiver.received if r.id == again.message_id)
    assert first.body == second.body
    eventually(lambda: shop.log(hook)[-1].by_hand, every=0.2)
    wrong = former_message_id("inventory", "nobody", 1)
    shop.order(hook, "RequestRedelivery", message_id=wrong, **place)
    shop.order(hook, "TestWebhook")
    eventually(lambda: len(receiver.received) == 5)
    assert receiver.received[-1].verify(SECRET)["type"] == "webhook.WebhookTestRequested"


def test_during_a_rotation_both_secrets_verify_and_then_only_the_new_one(
    shop: Shop, receiver: Receiver, hook: str
) -> None:
    shop.subscribe(hook, receiver.url)
    shop.order(hook, "RotateWebhookSecret", secret=OTHER_SECRET, overlap_ms=60_000)
    shop.happens(1, 0, hook)
    eventually(lambda: receiver.received)
    both = receiver.received[0]
    assert len(both.headers["webhook-signature"].split()) == 2
    assert both.verify(SECRET) == both.verify(OTHER_SECRET)


def is_followed(settings: Settings, webhook_id: str) -> bool:
    """True if the webhook has its place in the history."""
    return reading.waiting(settings, reading.webhooks(settings)[webhook_id]) is not None


def test_a_deleted_webhook_gets_nothing_more_and_the_others_do(
    shop: Shop, settings: Settings, receiver: Receiver, hook: str
) -> None:
    with Receiver() as other:
        shop.subscribe(hook, receiver.url)
        shop.subscribe(f"{hook}-other", other.url)
        eventually(lambda: is_followed(settings, hook), every=0.2)
        shop.order(hook, "DeleteWebhook")
        time.sleep(1)
        shop.happens(1, 1, hook)
        eventually(lambda: everything(other, shop))
        assert not receiver.received


def test_an_aggregate_that_is_left_out_and_named_again_is_followed_from_then_on(
    shop: Shop, settings: Settings, receiver: Receiver, hook: str
) -> None:
    shop.subscribe(hook, receiver.url)
    shop.happens(1, 0, hook)
    eventually(lambda: everything(receiver, shop))
    time.sleep(1)
    shop.order(hook, "UpdateWebhook", event_types=["user.*"])
    time.sleep(0.5)
    shop.happens(1, 1, hook)
    shop.order(hook, "UpdateWebhook", event_types=["user.*", "inventory.*"])
    shop.happens(1, 1, hook)
    eventually(lambda: (f"{hook}-0", 3) in events_of(receiver))
    assert (f"{hook}-0", 2) not in events_of(receiver)


@pytest.mark.parametrize(
    "value",
    [
        b"{nonsense",
        b'{"type":"StockReceived","id":"x:0","version":1,"occurred_at_ms":1,"data":{"a":"\xff"}}',
        b'{"type":"StockReceived","id":"x:0","version":%d,"occurred_at_ms":1,"data":{}}' % 2**70,
    ],
    ids=["no JSON", "no UTF-8", "a number beyond 64 bits"],
)
def test_what_is_no_event_is_set_aside_and_holds_up_nobody(
    shop: Shop, settings: Settings, receiver: Receiver, hook: str, value: bytes
) -> None:
    topics = topics_of(settings)
    shop.subscribe(hook, receiver.url)
    producer = Producer(kafka.producer(settings))
    producer.produce(topics.history("inventory"), key=f"{hook}-0", value=value)
    assert producer.flush(30) == 0
    shop.happens(1, 1, hook)
    eventually(lambda: everything(receiver, shop))

    def set_aside() -> bool:
        letters = read_topic(settings, topics.dead_letters)
        return any(
            letter.headers["orderflow.errors.stage"] == b"webhooks" and letter.value == value
            for letter in letters
        )

    eventually(set_aside, every=0.3)


def test_a_webhook_that_nothing_can_be_signed_for_holds_up_no_other(
    shop: Shop, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """A state as no processor writes it: what a bug of ours would look like."""
    with Receiver() as broken:
        shop.subscribe(hook, broken.url)
        states = read_topic(settings, topics_of(settings).events("webhook"))
        (record,) = (each for each in states if each.key == hook.encode())
        event = json.loads(record.value or b"")
        event["state"]["secrets"] = [{"secret": "whsec_", "until_ms": None}]
        event["version"] += 1
        send(settings, record._replace(key=f"{hook}-broken".encode(), value=encode(event)))
        shop.subscribe(f"{hook}-whole", receiver.url)
        time.sleep(1)
        shop.happens(2, 2, hook)
        eventually(lambda: everything(receiver, shop) and everything(broken, shop))
        assert len(receiver.received) == len(broken.received) == 6


def send(settings: Settings, record: Record) -> None:
    """A record of the webhooks' events, past every processor."""
    producer = Producer(kafka.producer(settings))
    producer.produce(topics_of(settings).events("webhook"), key=record.key, value=record.value)
    assert producer.flush(30) == 0


def test_a_command_that_is_sent_again_orders_nothing_twice(
    shop: Shop, settings: Settings, receiver: Receiver, hook: str
) -> None:
    shop.subscribe(hook, receiver.url)
    with CommandClient(settings) as client:
        for _ in range(3):
            assert client.execute(command(hook, "TestWebhook", command_id=f"{hook}-t")).accepted
    eventually(lambda: receiver.received)
    time.sleep(0.5)
    assert len(receiver.received) == 1
