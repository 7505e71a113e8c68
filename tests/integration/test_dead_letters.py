"""docs/DEAD_LETTERS.md, as an operator follows it; and `orderflow dead-letters` where a command is parked."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.records import Headers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
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


def made_up(**says: bytes) -> list[tuple[str, bytes]]:
    """Headers of a letter that another client has written."""
    told = {"stage": b"command-processor", **says}
    return [(f"orderflow.errors.{name.replace('_', '-')}", value) for name, value in told.items()]


MADE_UP: dict[str, tuple[bytes | None, list[tuple[str, bytes]]]] = {
    "an aggregate that there is not": (
        b"o-1",
        made_up(topic=b"{prefix}.nope.commands", partition=b"0", offset=b"6", holds_key=b"true"),
    ),
    "another pipeline's": (
        b"o-1",
        made_up(topic=b"x.user.commands", partition=b"0", offset=b"6", holds_key=b"true"),
    ),
    "no topic": (b"o-1", made_up(topic=b"no such topic!.commands", partition=b"0", offset=b"6")),
    "no partition": (
        None,
        made_up(topic=b"{prefix}.user.commands", partition=b"99999999999", offset=b"6"),
    ),
    "no key": (
        b"\xff\x00" * 400,
        made_up(topic=b"{prefix}.user.commands", partition=b"0", offset=b"5", holds_key=b"true"),
    ),
    "nothing held": (
        b"u9",
        made_up(topic=b"{prefix}.user.commands", partition=b"0", offset=b"6", holds_key=b"true"),
    ),
}


def test_letters_that_another_client_has_written_can_all_be_read_and_settled(
    env: dict[str, str], client: CommandClient, answer: Answer
) -> None:
    settings = Settings.model_validate(env)
    topics = topics_of(settings)
    producer = Producer(kafka.producer(settings))
    for key, marks in MADE_UP.values():
        prefix = settings.topic_prefix.encode()
        told: Headers = [(name, value.replace(b"{prefix}", prefix)) for name, value in marks]
        producer.produce(topics.dead_letters, b"{}", key, headers=told)
    producer.produce(topics.parked("user"), b"x", b"5", 0)
    assert producer.flush(30) == 0
    letters = answer("list")
    assert {one["topic"].removeprefix(settings.topic_prefix) for one in letters} == {
        *(".nope.commands", "x.user.commands", "no such topic!.commands", ".user.commands")
    }
    for letter in letters:
        assert answer("show", letter["id"])["id"] == letter["id"]
    text = CliRunner().invoke(app, ["doctor"], env=env).output
    assert "Traceback" not in text
    assert "bug in orderflow" not in text
    for letter in letters:
        retried = CliRunner().invoke(
            app, ["dead-letters", "retry", letter["id"], "--by", "ann"], env=env
        )
        assert retried.exit_code in (Exit.OK, Exit.NO), retried.output
    for letter in answer("list"):
        assert answer("discard", letter["id"], "--by", "ann")["settled"]
    assert answer("list") == []
