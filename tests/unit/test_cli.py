"""The command line without servers: help, mistakes, and what they say and exit with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orderflow.cli import app
from orderflow.cli.exits import MEANING, Exit
from orderflow.shop.retail_file import COLUMNS
from sagas import by_command

NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": "", "COLUMNS": "200"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No servers in the environment, and a home where none run."""
    return NOWHERE | {"ORDERFLOW_HOME": str(tmp_path)}


def run(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=environment)


COMMANDS = (
    "up",
    "demo",
    "send",
    "query",
    "import",
    "rebuild",
    "verify",
    "consistency",
    "verifier",
    "topics",
    "doctor",
    "processor",
    "saga-processor",
    "reactor",
    "payments",
    "webhooks",
    "gateway",
    "projector",
    "place-order",
    "sagas",
    "sync",
)


def test_help_lists_every_command_and_the_exit_codes(environment: dict[str, str]) -> None:
    result = run(environment, "--help")
    assert result.exit_code == Exit.OK
    for command in COMMANDS:
        assert command in result.stdout
    for code in MEANING:
        assert f"{int(code)} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(environment: dict[str, str], command: str) -> None:
    result = run(environment, command, "--help")
    assert result.exit_code == Exit.OK
    assert "Usage" in result.stdout


def test_a_mistyped_command_is_guessed(environment: dict[str, str]) -> None:
    result = run(environment, "dmeo")
    assert result.exit_code == Exit.USAGE
    assert "demo" in result.stderr


def test_a_mistyped_command_type_is_guessed(environment: dict[str, str]) -> None:
    result = run(environment, "send", "RegistrUser", "u-1")
    assert result.exit_code == Exit.USAGE
    assert "Did you mean RegisterUser" in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_command_type_gets_the_list(environment: dict[str, str]) -> None:
    result = run(environment, "send", "Xyzzy", "u-1")
    assert result.exit_code == Exit.USAGE
    for name in by_command:
        assert name in result.stderr


def test_broken_json_is_pointed_at(environment: dict[str, str]) -> None:
    result = run(environment, "send", "RegisterUser", "u-1", "--json", '{"name": Ada}')
    assert result.exit_code == Exit.USAGE
    assert "column 10" in result.stderr


@pytest.mark.parametrize("bad", ["a/b", "{x}", " a", ""])
def test_an_impossible_id_is_refused_before_anything_is_sent(
    environment: dict[str, str], bad: str
) -> None:
    result = run(environment, "send", "RegisterUser", bad)
    assert result.exit_code == Exit.USAGE
    assert "cannot be an id" in result.stderr


def test_without_servers_the_remedy_is_named(environment: dict[str, str]) -> None:
    result = run(environment, "send", "RegisterUser", "u-1", "--json", '{"name": "Ada"}')
    assert result.exit_code == Exit.UNREACHABLE
    assert "orderflow up" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "order", "o-1"),
        ("query", "user", "u-1"),
        ("query", "stock", "s-1"),
        ("query", "orders", "u-1"),
        ("query", "low-stock"),
        ("query", "top-users"),
        ("sagas", "list"),
        ("sagas", "show", "o-1"),
        ("rebuild",),
        ("topics", "list"),
        ("topics", "diff"),
        ("topics", "apply"),
        ("processor",),
        ("projector",),
    ],
    ids=" ".join,
)
def test_whatever_needs_servers_says_so(
    environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    result = run(environment, *arguments)
    assert result.exit_code == Exit.UNREACHABLE, result.output
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr
    assert "Traceback" not in result.output


def test_a_broken_setting_is_named(environment: dict[str, str]) -> None:
    result = run(environment | {"ORDERFLOW_PARTITIONS": "many"}, "topics", "list")
    assert result.exit_code == Exit.USAGE
    assert "ORDERFLOW_PARTITIONS" in result.stderr


def test_the_doctor_answers_in_one_json_document(environment: dict[str, str]) -> None:
    result = run(environment, "doctor", "-o", "json")
    assert result.exit_code == Exit.UNREACHABLE
    findings = json.loads(result.stdout)
    assert {finding["what"]: finding["mark"] for finding in findings}["servers"] == "bad"


def test_importing_a_file_that_is_not_there_names_it(environment: dict[str, str]) -> None:
    result = run(environment, "import", "online-retail", "/no/such/file.csv")
    assert result.exit_code == Exit.USAGE
    assert "/no/such/file.csv" in result.stderr.replace("\n", "")


def test_importing_another_file_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    result = run(environment, "import", "online-retail", str(other))
    assert result.exit_code == Exit.USAGE
    assert COLUMNS[0] in result.stderr
