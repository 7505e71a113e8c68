"""docs/DELETION.md, as a newcomer follows it."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.commanding import command
from tests.support.pages import carry_out
from tests.support.processes import environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.up import Up

PAGE = Path(__file__).parents[2] / "docs/DELETION.md"


def test_the_page(servers: ServersAddress, tmp_path: Path) -> None:
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / ".orderflow")
    with Up(env, tmp_path / "up.log"), CommandClient(Settings.model_validate(env)) as client:
        client.execute(command("first", "RegisterUser", name="First"), READY_WITHIN_S)
        env["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        assert carry_out(PAGE, env, tmp_path) == 6
