"""The scripts in examples/ do what they say, on a running pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.embedded import ServersAddress
from tests.support.processes import environment
from tests.support.up import Up

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def env(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Environment of a running pipeline."""
    folder = tmp_path_factory.mktemp("examples")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    with Up(env, folder / "up.log"):
        yield {**os.environ, **env, "PYTHONPATH": str(EXAMPLES.parent)}


def run(env: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_first_order_from_python(env: dict[str, str]) -> None:
    said = run(env, sys.executable, str(EXAMPLES / "first_order.py"))
    assert "accepted" in said
    assert "total=678" in said.replace(" ", "")


def test_the_bus_says_the_same_in_one_process_and_over_kafka(env: dict[str, str]) -> None:
    script = str(EXAMPLES / "bus.py")
    assert run(env, sys.executable, script, "--kafka") == run(env, sys.executable, script)


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed here")
def test_a_first_order_from_kcat(env: dict[str, str]) -> None:
    said = run(env, str(EXAMPLES / "first_order_kcat.sh"))
    assert "accepted CreateOrder" in said
    record = json.loads(said.splitlines()[-1])
    assert record["state"]["status"] == "created"
    assert record["state"]["total"] == 678
