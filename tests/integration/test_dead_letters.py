"""docs/DEAD_LETTERS.md, as an operator follows it; and `orderflow dead-letters` where a command is parked."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.commanding import command, eventually
from tests.support.pages import carry_out
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S

ROOT = Path(__file__).parents[2]

Answer = Callable[..., Any]


@pytest.fixture
def env(servers: ServersAddress, tmp_path: Path) -> dict[str, str]:
    found = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")
    topic_admin.apply(Settings.model_validate(found))
    return {**found, "BUG": str(tmp_path / "bug"), "COLUMNS": "160"}


@pytest.fixture
def client(env: dict[str, str], tmp_path: Path) -> Iterator[CommandClient]:
    """A client of a processor that is ready, whose handler has a bug while the file $BUG is there."""
    Path(env["BUG"]).touch()
    with (
        RoleProcess("tests.support.buggy_processor", env, tmp_path / "processor.log"),
        CommandClient(Settings.model_validate(env)) as client,
    ):
        client.execute(command("u0", "RegisterUser", name="Ada"), READY_WITHIN_S)
        yield client


@pytest.fixture
def answer(env: dict[str, str]) -> Answer:
    """The JSON answer of one command line."""

    def invoke(*arguments: str, code: int = Exit.OK) -> Any:
        result = CliRunner().invoke(app, ["dead-letters", *arguments, "-o", "json"], env=env)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if result.stdout else result.stderr

    return invoke


def test_the_page(env: dict[str, str], client: CommandClient, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert carry_out(ROOT / "docs/DEAD_LETTERS.md", {**env, "PATH": path}, tmp_path) == 6


def test_a_parked_command_on_the_command_line(
    env: dict[str, str], client: CommandClient, answer: Answer
) -> None:
    client.send(command("u0", "DeactivateUser", command_id="p", reason="poison"))
    client.send(command("u0", "RegisterUser", command_id="behind", name="Ada"))
    client.flush()
    eventually(lambda: [one["waiting"] for one in answer("list")] == [1], 60, 0.5)
    (letter,) = answer("list")
    assert (letter["code"], letter["stage"]) == ("internal_error", "command-processor")
    shown = answer("show", letter["id"])
    assert '"command_id":"p"' in shown["value"]
    assert "ZeroDivisionError: poison" in shown["headers"]["orderflow.errors.stacktrace"]
    text = CliRunner().invoke(app, ["dead-letters", "show", letter["id"]], env=env).stdout
    assert "holds user u0, 1 wait behind it" in text
    sent = CliRunner().invoke(
        app, ["send", "DeactivateUser", "u0", "--json", '{"reason":"x"}', "--wait"], env=env
    )
    assert sent.exit_code == Exit.TIMEOUT
    assert "waits behind it" in " ".join(sent.stderr.split())
    failed = answer("retry", letter["id"], "--by", "ann", code=Exit.NO)
    assert (failed["settled"], failed["code"]) == (False, "internal_error")
    Path(env["BUG"]).unlink()
    done = answer("retry", letter["id"], "--by", "ann", "--note", "mended")
    assert (done["settled"], done["result"]) == (True, "accepted")
    assert answer("list") == []
    (settled,) = answer("list", "--all")
    assert [a["by"] for a in settled["actions"]] == ["ann", "ann"]
    assert "settled already" in answer("discard", letter["id"], "--by", "bob", code=Exit.NO)
    assert "no dead letter" in answer("show", "0-999", code=Exit.NO)
    table = CliRunner().invoke(app, ["dead-letters", "show", letter["id"]], env=env).stdout
    assert "mended" in table
