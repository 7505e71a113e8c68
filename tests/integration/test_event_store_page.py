"""docs/EVENT_STORE.md and its example, as a newcomer follows them; and the rest of `orderflow history`."""

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
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.commanding import command, eventually
from tests.support.pages import carry_out
from tests.support.processes import environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.up import Up

ROOT = Path(__file__).parents[2]

Answer = Callable[..., Any]


@pytest.fixture(scope="module")
def env(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Environment of a running pipeline; `orderflow` and `python` are those of the tests."""
    folder = tmp_path_factory.mktemp("page")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / ".orderflow")
    settings = Settings.model_validate(env)
    with Up(env, folder / "up.log"), CommandClient(settings) as client:
        client.execute(command("first", "RegisterUser", name="First"), READY_WITHIN_S)
        yield {**env, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


@pytest.fixture
def answer(env: dict[str, str]) -> Answer:
    """The JSON answer of one command line."""

    def invoke(*arguments: str, code: int = Exit.OK) -> Any:
        result = CliRunner().invoke(app, [*arguments, "-o", "json"], env=env)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if result.stdout else result.stderr

    return invoke


def test_the_page(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert carry_out(ROOT / "docs/EVENT_STORE.md", env, tmp_path) == 10


def test_an_order_that_was_placed_is_one_conversation_from_the_request_to_the_views(
    env: dict[str, str], answer: Answer
) -> None:
    answer("send", "RegisterUser", "bob", "--json", '{"name": "Bob"}', "--wait")
    item = '{"description": "Mug", "opening_stock": 5}'
    answer("send", "RegisterItem", "MUG", "--json", item, "--wait")
    placed = answer("place-order", "placed-1", "MUG:2:100", "--user", "bob")
    assert placed["result"] == "placed"

    def views_have_it() -> bool:
        views = answer("history", "--correlation", "placed-1")["views"]
        return all(view["shown"] >= view["version"] for view in views)

    eventually(views_have_it)
    told = answer("history", "--correlation", "placed-1")
    assert {view["stream"] for view in told["views"]} == {
        "inventory/MUG",
        "order/placed-1",
        "saga/placed-1",
    }
    entries = told["entries"]
    assert (entries[0]["kind"], entries[0]["type"]) == ("command", "StartSaga")
    assert {entry["stream"]["aggregate"] for entry in entries} == {
        "saga",
        "user",
        "inventory",
        "payment",
        "order",
    }
    known = {entry["id"] for entry in entries}
    followed = [entry for entry in entries[1:] if entry["cause"]]
    assert len(followed) > 10
    assert all(entry["cause"] in known for entry in followed), "a cause is not in its conversation"


def test_what_cannot_be_shown_is_said(answer: Answer) -> None:
    assert "nothing was ever appended" in answer("history", "order", "none", code=Exit.NO)
    assert "no conversation none" in answer("history", "--correlation", "none", code=Exit.NO)
    assert "no streams of 'bill'" in answer("history", "bill", "b", code=Exit.USAGE)
    assert "is no time" in answer("history", "order", "o", "--at", "noon", code=Exit.USAGE)
    for arguments in (
        ("history",),
        ("history", "order"),
        ("history", "order", "o", "--correlation", "c"),
        ("history", "order", "o", "--at", "2026-01-01", "--version", "1"),
    ):
        answer(*arguments, code=Exit.USAGE)
