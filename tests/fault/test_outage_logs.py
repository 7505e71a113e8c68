"""A broker that is away fills no log: each role says once that it is away, and once that it is back."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedKafka, EmbeddedRedis, ServersAddress
from runtime.settings import Settings
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S

ROLES = ("processor", "saga-processor", "reactor", "payments", "projector", "indexer", "webhooks")
READY = {
    "processor": "ready ",
    "saga-processor": "ready ",
    "reactor": "reactor started",
    "payments": "assigned",
    "projector": "projector is running",
    "indexer": "",
    "webhooks": "assigned",
}
OUTAGE_S = 10.0
"""Long enough that a line for each attempt to connect would be some hundreds."""

MAX_LINES = 40
"""Of one role, for an outage however long; assignments are among them."""


def test_each_role_says_once_that_a_broker_is_away_and_once_that_it_is_back(
    own_kafka: EmbeddedKafka, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    address = ServersAddress(own_kafka.bootstrap_servers, own_redis.url)
    more = {"ORDERFLOW_GATEWAY_URL": "http://127.0.0.1:9"}
    env = environment(address, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home", **more)
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                RoleProcess(
                    "orderflow",
                    env,
                    tmp_path / f"{name}.log",
                    name,
                    *(("deliver",) if name == "webhooks" else ()),
                )
            )
            for name in ROLES
        }
        for name, process in running.items():
            eventually(lambda p=process, n=name: READY[n] in p.text(), 2 * READY_WITHIN_S)  # type: ignore[misc]
        before = {name: len(process.text().splitlines()) for name, process in running.items()}
        with CommandClient(settings) as client:
            client.execute(command("ada", "RegisterUser", name="Ada"), READY_WITHIN_S)

        own_kafka.kill()
        for process in running.values():
            eventually(lambda p=process: " is away: " in p.text(), 60)  # type: ignore[misc]
        time.sleep(OUTAGE_S)
        own_kafka.start()
        for process in running.values():
            eventually(lambda p=process: " is back after " in p.text(), 120)  # type: ignore[misc]
        for name, process in running.items():
            said = process.text().splitlines()[before[name] :]
            assert len(said) <= MAX_LINES, (name, len(said), said[:60])
            away = [line for line in said if " is away: " in line]
            back = [line for line in said if " is back after " in line]
            assert 1 <= len(away) <= 2, (name, away)
            assert len(back) == len(away), (name, back)
            assert process.running, said[-20:]
