"""The broker is killed again and again under load, at random moments, and started on the same data.

Afterwards every command has one outcome, every order an end, every transaction is there as a whole or not at
all, and no transaction hangs. ORDERFLOW_BROKER_KILLS: how often; 3 by default.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from orderflow.supervisor import Supervisor, role
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedKafka, ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from tests.support.broker_kills import (
    OUTPUT,
    Feed,
    Kills,
    RawWriters,
    caught_between,
    check_raw,
    hanging,
    times_of,
)
from tests.support.commanding import command, eventually, eventually_nothing
from tests.support.gateway import GatewayProcess
from tests.support.processes import environment
from tests.support.saga_invariants import check_orders, ended
from tests.support.saga_messages import SagaLog
from tests.support.sagas import READY_WITHIN_S

KILLS = int(os.environ.get("ORDERFLOW_BROKER_KILLS", "3"))
GOES_ON_WITHIN_S = 90.0
"""A role, after the broker is back: a hanging call is left behind after 13 s, a session ends after 10 s."""


@pytest.mark.timeout(300 + 90 * KILLS)
def test_a_broker_killed_under_load_again_and_again_leaves_nothing_hanging_or_undecided(
    own_kafka: EmbeddedKafka, servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    chance, kills = random.Random(), Kills()
    own = ServersAddress(own_kafka.bootstrap_servers, servers.redis_url)
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(tmp_path / "home", tmp_path / "gateway.log"))
        env = environment(own, prefix, tmp_path / "home", ORDERFLOW_GATEWAY_URL=gateway.url)
        settings = Settings.model_validate(env)
        topic_admin.apply(settings)
        names = ("processor", "saga-processor", "reactor", "payments")
        roles = Supervisor([role(name, env, tmp_path / "logs") for name in names])
        stack.enter_context(roles)
        stock(settings)
        with RawWriters(settings, f"{prefix}.raw") as raw, Feed(settings) as feed:
            for number in range(KILLS):
                kills.kill(own_kafka, chance)
                roles.look_after()
                raw.wait_for_more()  # the next kill finds transactions under way, too
                if number % 2 == 0:  # and every other one finds a pipeline that works again
                    one_more(settings)

        def all_ended() -> bool:
            roles.look_after()
            return ended(settings, feed.order_ids)

        def undecided() -> list[str]:
            roles.look_after()
            return SagaLog(settings).undecided()

        eventually(all_ended, 240, 1)
        eventually_nothing(undecided, 240, 1)
        check_orders(settings, gateway, feed.order_ids)
        eventually_nothing(lambda: hanging(settings), 60, 0.5)
        print(
            f"{len(feed.order_ids)} orders, {check_raw(settings, raw)} transactions of raw writers"
        )
        print(f"{caught_between(settings, kills)} transactions were caught before their markers")
        print("restarts:", {child.name: child.status().restarts for child in roles.children})
        for name, pauses in pauses_of(settings, kills).items():
            print(name, "went on after", ", ".join(f"{pause:.1f}" for pause in pauses), "s")
            assert max(pauses) < GOES_ON_WITHIN_S, name


def stock(settings: Settings) -> None:
    with CommandClient(settings) as client:
        ada = command("ada", "RegisterUser", name="Ada")
        assert client.execute(ada, READY_WITHIN_S).accepted
        item = command("A", "RegisterItem", description="item", opening_stock=1_000_000)
        assert client.execute(item, READY_WITHIN_S).accepted


def one_more(settings: Settings) -> None:
    with CommandClient(settings) as client:
        more = command("A", "ReceiveStock", quantity=1)
        assert client.execute(more, 2 * GOES_ON_WITHIN_S).accepted


def pauses_of(settings: Settings, kills: Kills) -> dict[str, list[float]]:
    """By role, seconds from the broker's return to its first record: see ``Kills.pauses``."""
    found = {
        name: kills.pauses(times_of(settings, topic(settings), lambda _: True))
        for name, topic in OUTPUT.items()
    }
    # A saga that an event caused, and no client.
    reactions = times_of(
        settings,
        topics_of(settings).commands("saga"),
        lambda message: (
            headers.CAUSATION_ID in dict(message.headers() or ())
            and (message.value() or b"").startswith(b'{"type":"StartSaga"')
        ),
    )
    return found | {"reactor": kills.pauses(reactions)}
