"""Whatever stands on a command line is taken or refused in one sentence: every command, every parameter."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime.printable import is_visible
from tests.support.command_lines import parse
from tests.support.command_tree import ENDLESS, Leaf, Parameter, leaves

NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": ""}
LEAVES = leaves()
WITH_SERVERS = [leaf for leaf in LEAVES if leaf.path not in {("up",), ("demo",), ("gateway",)}]
"""Commands that start no servers of their own."""

ENDING = [leaf for leaf in LEAVES if leaf.path not in ENDLESS]

DAMAGED = (
    "",
    "[]",
    "{",
    "\xff",
    "[" * 100_000,
    '{"owner_pid": []}',
    '{"owner_pid": -1, "owner_started": 1.0}',
    '{"owner_pid": 9999999999999999, "owner_started": 1.0}',
)
NUMBERS = ("", "-1", "²", "٣", "nan", "inf", "1e999", "1e300", "1" * 30, "1" * 5_000, "\x1b[2J")
TEXTS = (
    "",
    "a/b",
    "job[/batch]",
    ":smile:",
    "@",
    "@/no/such/file",
    "/",
    "\x1b]0;title\x07\x1b[2J\u202eabc\u200b\x9b",
    "\udcff",
    "a\0b",
    "é" * 10_000,
    "TEAPOT:²:1999",
    "MUG:" + "9" * 5_000 + ":1",
    "99999-01-01T00:00:00Z",
    "1969-12-31",
    "[" * 100_000,
    '{"a": [NaN, 1e999, "\\ud800"]}',
)


def words_for(parameter: Parameter) -> tuple[str, ...]:
    return NUMBERS if parameter.kind in (int, float) else TEXTS


def run(home: Path, *words: str, **more: str) -> Result:
    return CliRunner().invoke(app, words, env={**NOWHERE, "ORDERFLOW_HOME": str(home), **more})


def judge(result: Result, *, of: object) -> None:
    """No traceback, no bug, an exit code of the table, and nothing that a terminal obeys."""
    said = f"{of}: exit {result.exit_code}\n{result.output}"
    assert "Traceback" not in result.output, said
    assert result.exit_code in set(Exit) - {Exit.BUG}, said
    assert all(is_visible(char) or char == "\n" for char in result.output), said


@pytest.mark.parametrize("leaf", ENDING, ids=str)
def test_whatever_stands_on_a_command_line_is_answered_in_a_sentence(
    leaf: Leaf, tmp_path: Path
) -> None:
    for parameter in leaf.parameters:
        if parameter.is_flag:
            continue
        for word in words_for(parameter):
            words = leaf.words(**{parameter.name: word})
            judge(run(tmp_path, *words), of=words)


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.path in ENDLESS], ids=str)
def test_whatever_stands_behind_a_role_is_parsed_or_refused(leaf: Leaf) -> None:
    for parameter in leaf.parameters:
        for word in words_for(parameter):
            with contextlib.suppress(typer.TyperException):
                parse(leaf.words(**{parameter.name: word}))


def test_every_number_on_a_command_line_has_bounds() -> None:
    """Nobody waits for 1e300 seconds, and no clock can."""
    unbounded = [
        f"{leaf} {parameter.flags}"
        for leaf in LEAVES
        for parameter in leaf.parameters
        if parameter.kind in (int, float) and None in (parameter.least, parameter.most)
    ]
    assert unbounded == []


@pytest.mark.parametrize("word", ["TEAPOT:²:1999", "TEAPOT:1:²", "TEAPOT:1", ":1:1", "a/b:1:1"])
def test_a_line_that_is_none_is_refused(word: str, tmp_path: Path) -> None:
    result = run(tmp_path, "place-order", "o-1", word, "--user", "u-1")
    assert result.exit_code == Exit.USAGE
    assert "is no line of an order" in result.stderr


def test_a_sku_may_have_colons(tmp_path: Path) -> None:
    result = run(tmp_path, "place-order", "o-1", "urn:id:42:1:1999", "--user", "u-1")
    assert result.exit_code == Exit.UNREACHABLE  # it is a line, and there is no server


@pytest.mark.parametrize("word", ["[" * 100_000, "[" * 900 + "]" * 900])
def test_deep_json_is_data_or_refused(word: str, tmp_path: Path) -> None:
    result = run(tmp_path, "send", "RegisterUser", "u-1", "--json", word)
    assert result.exit_code in (Exit.USAGE, Exit.UNREACHABLE)


def test_a_mistake_in_json_is_pointed_at_by_its_character(tmp_path: Path) -> None:
    result = run(tmp_path, "send", "RegisterUser", "u-1", "--json", '{"näme": Ada}')
    assert result.exit_code == Exit.USAGE
    assert "at column 10" in result.stderr


UNFIT = (
    ("ORDERFLOW_PARTITIONS", "abc"),
    ("ORDERFLOW_PARTITIONS", "1" * 5_000),
    ("ORDERFLOW_TOPIC_PREFIX", "\x1b[2J"),
    ("ORDERFLOW_LOG_LEVEL", "LOUD"),
    ("REDIS_URL", "abc"),
    ("REDIS_URL", "redis://:pass/word@host:1"),
    ("REDIS_URL", "redis://127.0.0.1:1/0?no_such_option=1"),
    ("KAFKA_BOOTSTRAP_SERVERS", "\udcff:9092"),
    ("KAFKA_SECURITY_PROTOCOL", "NONE"),
)


@pytest.mark.parametrize("leaf", WITH_SERVERS, ids=str)
def test_an_unfit_setting_is_named(leaf: Leaf, tmp_path: Path) -> None:
    for name, value in UNFIT:
        result = run(tmp_path, *leaf.words(), **{name: value})
        judge(result, of=(leaf, name))
        if leaf.path[0] != "import":  # the file is looked at first
            assert result.exit_code == Exit.USAGE, (name, result.output)
            assert name in result.stderr
            assert "pass/word" not in result.output


@pytest.mark.parametrize("leaf", WITH_SERVERS, ids=str)
def test_a_home_that_is_unfit(leaf: Leaf, tmp_path: Path) -> None:
    """ORDERFLOW_HOME is a file, or what it says about the servers is damaged."""
    for content in DAMAGED:
        (tmp_path / "servers.json").write_text(content, "latin-1")
        judge(run(tmp_path, *leaf.words()), of=(leaf, content[:20]))
    judge(run(tmp_path / "servers.json", *leaf.words()), of=leaf)


IDS = frozenset(
    {"order_id", "user_id", "sku", "saga_id", "webhook_id", "aggregate_id", "letter_id"}
)


@pytest.mark.parametrize("leaf", ENDING, ids=str)
def test_what_cannot_be_an_id_is_refused_before_anything_is_asked(
    leaf: Leaf, tmp_path: Path
) -> None:
    for parameter in leaf.parameters:
        if parameter.name in IDS:
            for word in ("", "a/b", "{x}", "²-1"):
                result = run(tmp_path, *leaf.words(**{parameter.name: word}))
                assert result.exit_code == Exit.USAGE, (leaf, parameter.name, word, result.output)


def test_json_for_machines_is_json_whatever_the_stream_holds(tmp_path: Path) -> None:
    runner = CliRunner(charset="ascii")
    result = runner.invoke(
        app, ["doctor", "-o", "json"], env={**NOWHERE, "ORDERFLOW_HOME": str(tmp_path / "é\u202e☃")}
    )
    assert any("é\u202e☃" in finding["found"] for finding in json.loads(result.stdout))
    assert result.stdout.isascii()
