"""Webhooks share one reading of the history: what it costs, and that none of them feels the others."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.lanes import Place
from runtime.settings import Settings, networks
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.records import decode_event
from schemas.webhook import WebhookStatus, WebhookTestRequested
from tests.support.commanding import eventually
from tests.support.processes import RoleProcess, environment
from tests.support.receiver import OK, Answer, Receiver, by_attempt
from tests.support.topics import read_topic
from tests.support.webhooks import PATIENT, Shop, first_seen
from webhooks import catching_up, course, history, positions, reading, requests
from webhooks.policy import policy_of
from webhooks.posting import Poster
from webhooks.registry import Webhook, former_group_id, group_id
from webhooks.role import WebhooksRole

ALLOWED = {"ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32"}


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    found = environment(servers, prefix, tmp_path / "home", **ALLOWED, **PATIENT)
    topic_admin.apply(Settings.model_validate(found))
    return found


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings.model_validate(env)


@pytest.fixture
def shop(env: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Shop]:
    with (
        RoleProcess("processors", env, tmp_path / "processors.log"),
        CommandClient(settings) as client,
    ):
        yield Shop(settings, client)


@contextmanager
def role_here(settings: Settings) -> Iterator[WebhooksRole]:
    """The role on a thread of this process, so that a test can make its limits small."""
    started: list[WebhooksRole] = []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        allowed = networks(settings.webhook_allowed_networks)
        async with Poster(policy_of(settings).timeout_s, allowed) as poster:
            role = WebhooksRole(settings, poster)
            started.append(role)
            await role.run()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    eventually(lambda: started)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(started[0].stop)
        thread.join(60)
        assert not thread.is_alive()
        loop.close()


def has_all(receiver: Receiver, shop: Shop) -> bool:
    seen = first_seen([request.event for request in receiver.taken()])
    return all(len(seen.get(sku, ())) == version for sku, version in shop.expected.items())


def check_order(receiver: Receiver, shop: Shop) -> None:
    assert first_seen([request.event for request in receiver.received]) == {
        sku: list(range(1, version + 1)) for sku, version in shop.expected.items()
    }


def until_assigned(role: RoleProcess, shop: Shop, timeout: float = 30.0) -> None:
    """Wait until the role knows where every webhook stands."""
    eventually(
        lambda: all(f"webhook {name}: assigned" in role.text() for name in shop.webhooks),
        timeout=timeout,
    )


def test_a_hundred_webhooks_take_no_more_threads_than_one(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:
    with Receiver() as receiver, RoleProcess("webhooks", env, tmp_path / "role.log") as role:
        shop.subscribe("w-0", receiver.url)
        until_assigned(role, shop)
        shop.happens(1, 1)
        eventually(lambda: has_all(receiver, shop))
        threads = psutil.Process(role.pid).num_threads()
        for number in range(1, 100):
            shop.subscribe(f"w-{number}", receiver.url)
        until_assigned(role, shop, timeout=120)
        shop.happens(1, 1, "later")
        eventually(lambda: len(receiver.received) >= 2 + 2 * 100, timeout=120)
        # Readers for those that are behind, and threads to ask for positions, are made when first needed.
        most = threads + 4 * catching_up.READERS + 5 * positions.ASKING_THREADS
        assert psutil.Process(role.pid).num_threads() <= most
        assert role.stop() == 0


@pytest.mark.parametrize("large", [1, 10**6], ids=["all-large", "none-large"])
def test_webhooks_that_are_full_fall_behind_and_catch_up_in_order_while_others_go_on(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(course, "HELD_BYTES", 1)
    monkeypatch.setattr(course, "LEAST_SHARE", 4_000)
    monkeypatch.setattr(course, "LARGE_BYTES", large)
    monkeypatch.setattr(catching_up, "PAGE_RECORDS", 7)
    with ExitStack() as stack:
        fast = stack.enter_context(Receiver())
        slow = stack.enter_context(Receiver(lambda _: Answer(200, after_s=0.02)))
        flaky = stack.enter_context(Receiver(by_attempt(Answer(503), OK)))
        dead = stack.enter_context(Receiver(lambda _: Answer(raw=b"")))
        stack.enter_context(role_here(settings))
        for name, receiver in (("fast", fast), ("slow", slow), ("flaky", flaky), ("dead", dead)):
            shop.subscribe(name, receiver.url)
        shop.happens(8, 20)
        for receiver in (fast, slow, flaky):
            eventually(lambda r=receiver: has_all(r, shop), timeout=120)  # type: ignore[misc]
            check_order(receiver, shop)
        assert not dead.taken()
        dead.behave = lambda _: OK
        if shop.state("dead").status == "paused":
            shop.order("dead", "ResumeWebhook")
        eventually(lambda: has_all(dead, shop), timeout=120)
        check_order(dead, shop)


def test_a_webhook_from_the_beginning_reads_the_past_while_others_get_what_happens(
    shop: Shop, settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    shop.happens(10, 100)
    past = dict(shop.expected)
    with (
        Receiver() as now,
        Receiver(lambda _: Answer(200, after_s=0.01)) as old,
        RoleProcess("webhooks", env, tmp_path / "role.log") as role,
    ):
        shop.subscribe("now", now.url)
        shop.subscribe("old", old.url, from_beginning=True)
        until_assigned(role, shop)
        shop.expected.clear()
        shop.happens(3, 3, "new")
        eventually(lambda: has_all(now, shop))
        assert len(old.taken()) < sum(past.values()), "nobody waited for it"
        check_order(now, shop)
        shop.expected |= past
        eventually(lambda: has_all(old, shop), timeout=120, every=0.3)
        check_order(old, shop)


def test_positions_of_the_group_that_a_webhook_was_a_member_of_are_taken_over(
    shop: Shop, settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    with Receiver() as receiver:
        shop.subscribe("w", receiver.url)
        shop.happens(4, 2, "seen")
        webhook = reading.webhooks(settings)["w"]
        topic = topics_of(settings).history("inventory")
        since = str(webhook.state.since["inventory"])
        places = [(topic, number) for number in range(settings.partitions)]
        ends = kafka.end_offsets(AdminClient(kafka.admin(settings)), places, 30)
        member = Consumer(kafka.group_consumer(settings, former_group_id(settings, "w")))
        member.commit(
            offsets=[TopicPartition(*place, at, since) for place, at in ends.items()],
            asynchronous=False,
        )
        member.close()
        shop.expected.clear()
        shop.happens(4, 2, "new")
        with RoleProcess("webhooks", env, tmp_path / "role.log"):
            eventually(lambda: has_all(receiver, shop))
        check_order(receiver, shop)


def test_positions_of_a_paused_webhook_are_committed_again_and_do_not_expire(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEEP_ALIVE_EVERY_S", 0.5)
    admin = AdminClient(kafka.admin(settings))

    def waiting() -> int | None:
        return reading.waiting(settings, reading.webhooks(settings)["w"])

    with Receiver() as receiver, role_here(settings):
        shop.subscribe("w", receiver.url)
        eventually(lambda: waiting() is not None, every=0.2)
        shop.order("w", "PauseWebhook", reason="x")
        time.sleep(1)
        for answer in admin.delete_consumer_groups([group_id(settings, "w")]).values():
            answer.result()
        eventually(lambda: waiting() is not None, every=0.2)
        shop.happens(2, 2)
        shop.order("w", "ResumeWebhook")
        eventually(lambda: has_all(receiver, shop))
        check_order(receiver, shop)


def test_processes_share_the_partitions_and_take_over_from_one_another(
    shop: Shop, settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        receivers = [stack.enter_context(Receiver()) for _ in range(5)]
        for number, receiver in enumerate(receivers):
            shop.subscribe(f"w-{number}", receiver.url)
        first = stack.enter_context(RoleProcess("webhooks", env, tmp_path / "first.log"))
        until_assigned(first, shop, timeout=60)
        shop.happens(6, 3)
        second = stack.enter_context(RoleProcess("webhooks", env, tmp_path / "second.log"))
        until_assigned(second, shop, timeout=60)
        shop.happens(6, 3)
        for receiver in receivers:
            eventually(lambda r=receiver: has_all(r, shop), timeout=60)  # type: ignore[misc]
        time.sleep(1)  # the positions are committed
        assert first.stop() == 0, first.text()
        shop.happens(6, 3)
        for receiver in receivers:
            eventually(lambda r=receiver: has_all(r, shop), timeout=60)  # type: ignore[misc]
            check_order(receiver, shop)
            events = [request.event for request in receiver.received]
            assert len(events) == len(set(events)), "nothing came twice"
        assert second.stop() == 0, second.text()


def test_a_request_that_no_state_follows_is_set_aside_and_those_after_it_are_carried_out(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may be found in a history that another client has written to."""
    monkeypatch.setattr(requests, "KNOWN_WITHIN_S", 2.0)
    topics = topics_of(settings)
    with Receiver() as receiver, role_here(settings):
        shop.subscribe("w", receiver.url, "user.*")
        shop.order("w", "TestWebhook")
        eventually(lambda: len(receiver.received) == 1)
        request = next(
            each
            for each in read_topic(settings, topics.history("webhook"))
            if decode_event(each.value or b"").type == WebhookTestRequested.__name__
        )
        event = json.loads(request.value or b"") | {"version": 99}
        producer = Producer(kafka.producer(settings))
        for webhook_id in ("w", "nobody"):
            producer.produce(
                topics.history("webhook"),
                json.dumps(event).encode(),
                webhook_id.encode(),
                request.partition,
            )
        assert producer.flush(30) == 0
        shop.order("w", "TestWebhook")
        eventually(lambda: len(receiver.received) == 2)

        def set_aside() -> set[tuple[bytes, bytes]]:
            return {
                (letter.key or b"", letter.headers[headers.ERROR_CODE])
                for letter in read_topic(settings, topics.dead_letters)
            }

        eventually(
            lambda: set_aside() == {(b"w", b"not_found"), (b"nobody", b"not_found")}, every=0.3
        )


def test_a_bug_in_the_work_of_one_webhook_pauses_that_one_and_ends_no_other(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = positions.Positions.begin

    async def fail_for_one(
        self: positions.Positions, webhook: Webhook, places: list[Place]
    ) -> dict[Place, int]:
        if webhook.id == "ill":
            raise OverflowError("int too big to convert")
        return await begin(self, webhook, places)

    monkeypatch.setattr(positions.Positions, "begin", fail_for_one)
    with Receiver() as receiver, role_here(settings):
        shop.subscribe("ill", receiver.url)
        shop.subscribe("well", receiver.url)
        shop.happens(2, 2)
        eventually(lambda: has_all(receiver, shop))
        eventually(lambda: shop.state("ill").status is WebhookStatus.PAUSED, every=0.3)
        assert "OverflowError" in (shop.state("ill").pause_reason or "")
        shop.happens(2, 2)
        eventually(lambda: has_all(receiver, shop))


def test_a_state_with_a_number_beyond_64_bits_is_no_state_of_a_webhook(
    shop: Shop, settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    with Receiver() as receiver, RoleProcess("webhooks", env, tmp_path / "role.log") as role:
        shop.subscribe("w", receiver.url)
        (record,) = read_topic(settings, topics_of(settings).events("webhook"))
        event = json.loads(record.value or b"")
        event["state"]["since"] = dict.fromkeys(event["state"]["since"], 2**70)
        producer = Producer(kafka.producer(settings))
        producer.produce(topics_of(settings).events("webhook"), json.dumps(event), "forged")
        assert producer.flush(30) == 0
        eventually(lambda: "a record of webhook b'forged' cannot be read" in role.text())
        shop.happens(2, 2)
        eventually(lambda: has_all(receiver, shop))
        assert role.stop() == 0, role.text()
