"""An idle pipeline says that nothing waits, whatever offsets lie behind the last record."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.lag import LagMeter
from readmodels import preflight
from readmodels.views import VIEWS
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedRedis, ServersAddress
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S

MARKERS = 5
MIB = 1024 * 1024


def in_transactions(settings: Settings, topic: str, values: list[bytes | None]) -> None:
    """Each value in a transaction of its own; None: one that is aborted. All on partition 0."""
    producer = Producer(kafka.transactional_producer(settings, f"t{uuid.uuid4().hex}"))
    producer.init_transactions(30)
    for value in values:
        producer.begin_transaction()
        producer.produce(topic, value or b"{}", b"eve", 0)
        if value is None:
            producer.flush(10)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


def test_what_nobody_can_read_does_not_wait_and_what_can_be_read_does(
    servers: ServersAddress, tmp_path: Path
) -> None:
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    topic = topics_of(settings).commands("user")
    broken = b'{"no": "command"}'
    with (
        RoleProcess("processors", env, tmp_path / "p.log") as processor,
        CommandClient(settings) as client,
        closing(LagMeter(settings)) as meter,
    ):
        client.execute(command("ada", "RegisterUser", name="Ada"), READY_WITHIN_S)
        in_transactions(settings, topic, [broken] + [None] * MARKERS)
        # Everything is decided; the offsets of the aborted records and of the markers are left.
        eventually(lambda: meter.measure().waiting == 0, READY_WITHIN_S)
        with closing(LagMeter(settings)) as fresh:
            assert fresh.measure().waiting == 0
        processor.stop()

        in_transactions(settings, topic, [broken, None, broken, None, broken])
        eventually(lambda: meter.measure().waiting == 3)
        with closing(LagMeter(settings)) as fresh:
            assert fresh.measure().waiting == 3


def test_an_idle_pipeline_is_not_read_again(
    servers: ServersAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    in_transactions(settings, topics_of(settings).commands("user"), [None] * MARKERS)
    looks: list[float] = []
    counted = kafka.what_came

    def noted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return counted(*arguments)

    with closing(LagMeter(settings)) as meter:
        assert meter.measure().waiting == 0
        monkeypatch.setattr(kafka, "what_came", noted)
        for _ in range(3):
            assert meter.measure().waiting == 0
        assert not looks


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "noeviction"])
def test_a_redis_that_evicts_is_refused_with_the_remedy_and_the_doctor_says_so(
    servers: ServersAddress, own_redis: EmbeddedRedis, tmp_path: Path, policy: str
) -> None:
    address = ServersAddress(servers.bootstrap_servers, own_redis.url)
    env = environment(address, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with closing(connect(settings)) as client:
        client.config_set("maxmemory-policy", policy)
        client.set("filler", "x" * 20 * MIB)
        # What the server needed to receive it is given back a moment later.
        eventually(lambda: client.info("memory")["used_memory"] < 23 * MIB)
        client.config_set("maxmemory", 24 * MIB)
    done = CliRunner().invoke(app, ["doctor", "-o", "json"], env=env)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["redis memory"]["mark"] == "note", found["redis memory"]
    assert found["redis persistence"]["mark"] == "ok"
    if policy == "noeviction":
        assert found["redis eviction"]["mark"] == "ok"
        preflight.check(settings, VIEWS)
        return
    assert found["redis eviction"]["mark"] == "bad"
    assert "CONFIG SET maxmemory-policy noeviction" in found["redis eviction"]["remedy"]
    assert done.exit_code == Exit.UNFIT
    with pytest.raises(preflight.Refused, match=f"{policy}.*CONFIG SET maxmemory-policy noev"):
        preflight.check(settings, VIEWS)
