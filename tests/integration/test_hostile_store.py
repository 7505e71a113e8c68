"""Every command against servers whose content, rights or absence it has not to answer for: a sentence and an
exit code of the table, never a traceback, and nothing that a terminal obeys.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime import topic_admin
from runtime.embedded import ServersAddress
from runtime.printable import is_visible
from runtime.settings import Settings
from tests.support import hostile_store as hostile
from tests.support.command_tree import ENDLESS, leaves
from tests.support.processes import environment
from tests.support.run_commands import Ended, run_commands

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1_500)]

GOOD = set(Exit) - {Exit.BUG}

EXTRA = (
    ("history", "--correlation", "o-1"),
    ("history", "user", "o-1", "--diff"),
    ("dead-letters", "list", "--all"),
    ("rebuild", "--dry-run"),
    ("rebuild", "--rollback"),
    ("rebuild", "--discard-previous"),
    ("rebuild", "--aggregate", "order", "o-1"),
    ("verify", "--repair"),
    ("sync", "sql", "--once"),
    ("indexer", "--once"),
)
"""Ways of the commands that their required arguments alone do not reach."""


def command_lines() -> list[list[str]]:
    """Every command that ends by itself, for people and as JSON."""
    lines = [list(words) for words in EXTRA]
    for leaf in leaves():
        if leaf.path in ENDLESS:
            continue
        lines.append(leaf.words())
        if leaf.option("output") is not None:
            lines.append(leaf.words(output="json"))
        elif leaf.option("json") is not None and leaf.option("json").is_flag:  # type: ignore[union-attr]
            lines.append(leaf.words(json=""))
    return lines


def problems(ended: Sequence[Ended]) -> list[str]:
    """What no command may do, with the command line that does it."""
    found = []
    for one in ended:
        said = one.stdout + one.stderr
        if (
            "Traceback" in said
            or one.code not in GOOD
            or not all(is_visible(char) or char == "\n" for char in said)
        ):
            found.append(f"{' '.join(one.words)}: exit {one.code}: {said[-600:]!r}")
    return found


@pytest.fixture
def env(servers: ServersAddress, tmp_path: Path) -> dict[str, str]:
    return environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")


def test_topics_full_of_garbage(env: dict[str, str]) -> None:
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    store = hostile.HostileTopics(settings)
    for topic in store.aggregate_topics():
        store.put(topic, hostile.garbage())
    store.put(store.topics.dead_letters, hostile.dead_letters())
    store.put(store.topics.audit, hostile.mutated("o-1", [hostile.golden("records", "Action.v1")]))
    lines = hostile.mutated("o-1", [hostile.golden("records", "Delivery.v1")])
    store.put(store.topics.webhook_deliveries, lines)
    assert problems(run_commands(command_lines(), env)) == []


def test_topics_that_are_missing(env: dict[str, str]) -> None:
    assert problems(run_commands(command_lines(), env)) == []


def test_servers_that_are_absent(env: dict[str, str]) -> None:
    away = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}
    assert problems(run_commands(command_lines(), env | away)) == []


@pytest.fixture
def store(env: dict[str, str]) -> Iterator[redis.Redis]:
    topic_admin.apply(Settings.model_validate(env))
    with closing(redis.Redis.from_url(env["REDIS_URL"])) as client:
        yield client


def test_a_redis_without_permission(env: dict[str, str], store: redis.Redis) -> None:
    name = f"u{uuid.uuid4().hex}"
    store.acl_setuser(
        name, enabled=True, passwords=["+secret"], keys=["none:*"], categories=["+@all"]
    )
    try:
        url = env["REDIS_URL"].replace("redis://", f"redis://{name}:secret@")
        ended = run_commands(command_lines(), env | {"REDIS_URL": url})
    finally:
        store.acl_deluser(name)
    assert problems(ended) == []
    assert not any("secret" in one.stdout + one.stderr for one in ended)


QUERIES = {
    "orders": (
        ("query", "order", "o-1"),
        ("query", "orders", "o-1"),
        ("query", "user", "o-1"),
        ("query", "top-users"),
        ("query", "top-users", "--by", "orders"),
    ),
    "users": (("query", "user", "o-1"),),
    "stock": (("query", "stock", "o-1"), ("query", "low-stock")),
    "sagas": (("sagas", "list"), ("sagas", "show", "o-1")),
}
"""View → what asks it."""

EVERY_QUERY = tuple(dict.fromkeys(one for queries in QUERIES.values() for one in queries))


def test_a_redis_in_which_one_thing_is_wrong(env: dict[str, str], store: redis.Redis) -> None:
    prefix, runner = env["ORDERFLOW_TOPIC_PREFIX"], CliRunner()
    hostile.fill(store, prefix)
    for words in EVERY_QUERY:
        result = runner.invoke(app, words, env=env)
        assert result.exit_code == Exit.OK, result.output
        assert "o-1" in result.stdout
    unfit = 0
    for key, damage in hostile.damages(store, prefix):
        view = key.removeprefix(f"{prefix}:").partition(":")[0]
        for words in QUERIES.get(view, EVERY_QUERY):
            result = runner.invoke(app, words, env=env)
            said = f"{key}, {damage}; {words}: exit {result.exit_code}\n{result.output}"
            assert result.exit_code in {Exit.OK, Exit.NO, Exit.UNFIT}, said
            assert "Traceback" not in result.output, said
            assert all(is_visible(char) or char == "\n" for char in result.output), said
            unfit += result.exit_code == Exit.UNFIT
            if result.exit_code == Exit.UNFIT:
                assert "orderflow rebuild" in result.stderr, said
    assert unfit > 50
