"""A transaction that stays open: `doctor` says whose it is, and `orderflow topics abort-hanging` ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from runtime import hanging, kafka, topic_admin
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.processes import environment

LONG_MS = 10 * 60 * 1000


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    found = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(found))
    return found


def orderflow(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orderflow", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_open_transaction_is_found_named_and_ended(env: dict[str, str]) -> None:
    settings = Settings.model_validate(env)
    topic = topics_of(settings).commands("user")
    name = f"stuck.{settings.topic_prefix}"
    times = {"transaction.timeout.ms": LONG_MS, "delivery.timeout.ms": LONG_MS}
    stuck = Producer(kafka.transactional_producer(settings, name) | times)
    stuck.init_transactions(30)
    stuck.begin_transaction()
    stuck.produce(topic, b"{}", b"nobody", 1)
    stuck.flush(30)

    doctor = orderflow(env, "doctor", "--output", "json")
    found = {one["what"]: one for one in json.loads(doctor.stdout)}["transactions"]
    assert found["mark"] == "bad"
    assert f"{topic}-1 at 0" in found["found"]
    assert name in found["found"]
    assert "abort-hanging" in found["remedy"]

    refused = orderflow(env, "topics", "abort-hanging", "--yes")
    assert refused.returncode == 1  # its coordinator knows it as under way
    assert "under way" in refused.stderr
    assert orderflow(env, "topics", "abort-hanging", "--force", "--yes").returncode == 0
    assert hanging.stuck(settings, [(topic, 1)], after_s=1.0) == {}
    assert "No transaction hangs" in orderflow(env, "topics", "abort-hanging").stdout
