"""Webhooks under faults: whatever is killed, every event arrives, those of one aggregate in their order."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from schemas.webhook import DeliveryResult, WebhookStatus
from tests.support.commanding import eventually
from tests.support.processes import RoleProcess, environment
from tests.support.receiver import OK, Answer, Received, Receiver
from tests.support.webhooks import PATIENT, SECRET, Shop, first_seen

ROUNDS = 4
DELIVERED_WITHIN_S = 90


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    found = environment(
        servers,
        prefix,
        tmp_path / "home",
        ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS="127.0.0.1",
        **PATIENT,
    )
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


def moody(chance: random.Random) -> Answer:
    """How a receiver answers that has its days."""
    mood = chance.random()
    if mood < 0.75:
        return Answer(200, after_s=0.02)
    if mood < 0.85:
        return Answer(503)
    if mood < 0.9:
        return Answer(200, cut=True)
    if mood < 0.95:
        return Answer(raw=b"")
    return Answer(200, after_s=1.0)  # longer than the role waits


def delivered(receiver: Receiver, shop: Shop) -> bool:
    seen = first_seen([request.event for request in receiver.taken()])
    return all(len(seen.get(sku, ())) == version for sku, version in shop.expected.items())


def check_order(requests: list[Received], shop: Shop) -> None:
    """Versions came up one after the other; what came again, came again."""
    assert first_seen([request.event for request in requests]) == {
        sku: list(range(1, version + 1)) for sku, version in shop.expected.items()
    }


def test_whatever_is_killed_every_event_arrives_in_order_and_a_rebuild_delivers_nothing(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(7)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(lambda _: moody(chance)))
        shop.subscribe("w", receiver.url)
        for round_ in range(ROUNDS):
            with RoleProcess("webhooks", env, tmp_path / f"killed-{round_}.log") as process:
                until_says(process, "webhook w: assigned")
                shop.happens(12, 4)
                until_more(receiver, 5)
                time.sleep(chance.uniform(0, 0.4))
                assert process.running, process.text()
                process.kill()
            if round_ == 1:
                shop.happens(12, 2)  # while nobody delivers
            if shop.state("w").status is WebhookStatus.PAUSED:
                shop.order("w", "ResumeWebhook")
        one = stack.enter_context(RoleProcess("webhooks", env, tmp_path / "one.log"))
        two = stack.enter_context(RoleProcess("webhooks", env, tmp_path / "two.log"))
        shop.happens(12, 3)
        eventually(lambda: delivered(receiver, shop), timeout=DELIVERED_WITHIN_S, every=0.3)
        check_order(receiver.taken(), shop)
        check_order(receiver.received, shop)
        for request in receiver.received:
            request.verify(SECRET)

        receiver.behave = lambda _: OK
        settled_at = quiet(receiver)
        stack.enter_context(RoleProcess("readmodels", env, tmp_path / "projector.log"))
        with RoleProcess("orderflow", env, tmp_path / "rebuild.log", "rebuild") as rebuild:
            assert rebuild.wait(120) == 0, rebuild.text()
        assert one.stop() == 0, one.text()
        assert two.stop() == 0, two.text()
        again = stack.enter_context(RoleProcess("webhooks", env, tmp_path / "again.log"))
        until_says(again, "webhook w: assigned")
        time.sleep(2)
        assert len(receiver.received) == settled_at, "neither a rebuild nor a start delivers again"
        assert again.stop() == 0, again.text()


def until_says(process: RoleProcess, text: str) -> None:
    """A killed predecessor's partitions are given to another one when its session has run out."""
    eventually(lambda: text in process.text())


def until_more(receiver: Receiver, count: int) -> None:
    before = len(receiver.received)
    eventually(lambda: len(receiver.received) > before + count)


def quiet(receiver: Receiver) -> int:
    """Waits until nothing has come for two seconds; how much has come by then."""
    count, since = len(receiver.received), time.monotonic()
    while time.monotonic() < since + 2:
        time.sleep(0.1)
        if len(receiver.received) != count:
            count, since = len(receiver.received), time.monotonic()
    return count


def test_nothing_that_happens_between_the_subscription_and_the_first_start_is_lost(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:
    shop.happens(3, 2, "before")
    shop.expected.clear()
    with Receiver() as receiver, Receiver() as former:
        shop.subscribe("w", former.url)
        shop.happens(3, 2, "after")
        shop.order("w", "UpdateWebhook", url=receiver.url)
        with RoleProcess("webhooks", env, tmp_path / "role.log"):
            eventually(lambda: delivered(receiver, shop))
            check_order(receiver.received, shop)
            assert not former.received, "a state that was overtaken is not acted on"


def test_a_webhook_that_fails_holds_up_no_other_and_loses_nothing_over_a_kill_while_paused(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:
    with Receiver(lambda _: Answer(500)) as bad, Receiver() as good:
        shop.subscribe("bad", bad.url)
        shop.subscribe("good", good.url)
        with RoleProcess("webhooks", env, tmp_path / "first.log") as first:
            shop.happens(10, 5)
            eventually(lambda: delivered(good, shop))
            eventually(lambda: shop.state("bad").status is WebhookStatus.PAUSED, every=0.3)
            first.kill()
        bad.behave = lambda _: OK
        with RoleProcess("webhooks", env, tmp_path / "second.log") as second:
            until_says(second, "webhook bad: assigned")
            time.sleep(1)
            assert not bad.taken()
            shop.order("bad", "ResumeWebhook")
            eventually(lambda: delivered(bad, shop), timeout=60)
            check_order(bad.taken(), shop)
            assert second.stop() == 0, second.text()


def test_a_delivery_asked_for_by_hand_survives_a_kill(
    shop: Shop, env: dict[str, str], tmp_path: Path
) -> None:
    with Receiver() as receiver:
        shop.subscribe("w", receiver.url)
        with RoleProcess("webhooks", env, tmp_path / "first.log") as first:
            shop.happens(1, 1)
            eventually(lambda: len(shop.log("w")) == 2, every=0.2)
            line = shop.log("w")[0]
            receiver.behave = lambda _: Answer(200, after_s=5)
            shop.order(
                "w",
                "RequestRedelivery",
                message_id=line.message_id,
                aggregate="inventory",
                partition=line.partition,
                offset=line.offset,
            )
            eventually(lambda: len(receiver.received) == 3)
            first.kill()
        receiver.behave = lambda _: OK
        with RoleProcess("webhooks", env, tmp_path / "second.log"):
            eventually(lambda: [each for each in shop.log("w") if each.by_hand], timeout=60)
    (done,) = (each for each in shop.log("w") if each.by_hand)
    assert done.result is DeliveryResult.DELIVERED
    assert (done.aggregate_id, done.version) == ("sku-0", 1)
    assert len({request.id for request in receiver.received if request.event == ("sku-0", 1)}) == 1
