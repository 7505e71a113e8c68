"""Clients that hang in a call whatever its time-out: the role ends, and says where it hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import topic_admin
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.processes import environment

HANGING = """
import sys, threading
from runtime import kafka, watchdog
from runtime.settings import Settings

watchdog.HANGS_AFTER_S = 3.0
thread = sys.argv[1]
came, reads = kafka.what_came, []

def hang():
    reads.append(1)
    if len(reads) > 5:
        threading.Event().wait()  # as a library that ignores its time-out

def what_came(*about):
    if threading.current_thread().name.startswith(thread):
        hang()
    return came(*about)

kafka.what_came = what_came
"""
WEBHOOKS = """
from webhooks.role import run_webhooks
sys.exit(run_webhooks(Settings()))
"""
INDEXER = """
from eventstore.role import run_indexer
sys.exit(run_indexer(Settings()))
"""
PROJECTOR = """
from readmodels.projector import run_projector
from readmodels.watch import Watch

async def look(self):
    hang()

Watch.look = look
sys.exit(run_projector(Settings()))
"""


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    found = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(found))
    return found


@pytest.mark.parametrize(
    ("role", "thread", "loop"),
    [
        (WEBHOOKS, "webhooks-registry", "webhooks-registry"),
        (WEBHOOKS, "webhooks-requests", "webhooks-requests"),
        (INDEXER, "MainThread", "main loop"),
        (PROJECTOR, "none", "main loop"),
    ],
    ids=["registry", "requests", "indexer", "projector"],
)
def test_a_role_that_hangs_in_a_call_ends_for_its_supervisor_and_says_where(
    env: dict[str, str], role: str, thread: str, loop: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING + role, thread],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"hangs: its {loop} has made no turn" in done.stderr
    assert "in hang" in done.stderr
