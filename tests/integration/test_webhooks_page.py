"""docs/WEBHOOKS.md, carried out as a newcomer would: the pipeline, the example receiver, every command."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.commanding import command, eventually
from tests.support.pages import carry_out
from tests.support.processes import environment
from tests.support.up import Up
from webhooks import reading

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "WEBHOOKS.md"


@pytest.fixture
def env(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    found = environment(
        servers, prefix, tmp_path / "home", ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS="127.0.0.1"
    )
    with Up(found, tmp_path / "up.log"), CommandClient(Settings.model_validate(found)) as client:
        # A person reads on; a test would be faster than the roles are on a busy machine.
        client.execute(command("nobody", "ValidateUser"), timeout=90)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        yield {**found, "PATH": path}


@pytest.mark.slow
@pytest.mark.timeout(600)  # fourteen command lines, each a process
def test_the_page_does_what_it_says(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    settings = Settings.model_validate(env)
    heard = tmp_path / "receiver.log"
    with ExitStack() as stack:

        def before(line: str) -> None:
            """What a person does in the other terminal, and waits to see there."""
            if line.startswith("orderflow webhooks test"):
                stack.enter_context(Receiving(env, tmp_path, heard))
            elif line.startswith("orderflow webhooks deliveries shop"):
                eventually(lambda: len(reading.deliveries(settings, "shop", 9)) >= 2, every=0.3)
            elif line.startswith("orderflow webhooks pause"):
                eventually(lambda: "again: evt_" in heard.read_text())

        assert carry_out(PAGE, env, tmp_path, before) == 14
    lines = heard.read_text().splitlines()
    assert lines[:2] == [
        "webhook.WebhookTestRequested: shop, version 2",
        "user.UserRegistered: ada, version 1",
    ]
    assert [line[:11] for line in lines[2:]] == ["again: evt_"]
    secret = (tmp_path / "secret").read_text().strip()
    assert secret in (tmp_path / "shop.json").read_text()
    assert secret not in (tmp_path / "new-secret").read_text()


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 8801)) == 0


class Receiving:
    """The page's own line for the receiver, in a process that ends with the test."""

    def __init__(self, env: dict[str, str], folder: Path, log: Path) -> None:
        (line,) = re.findall(
            r"^WEBHOOK_SECRET=.*webhook_receiver.*$", PAGE.read_text("utf-8"), re.MULTILINE
        )
        self._log = log.open("wb")
        secret, _, command = line.partition(" python ")
        self._process = subprocess.Popen(
            ["bash", "-c", f"{secret} exec python {command}"],
            cwd=folder,
            env={**os.environ, **env},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> None:
        eventually(_listens)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
