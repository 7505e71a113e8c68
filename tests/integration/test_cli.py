"""The command line against real servers: `up` in a process of its own, everything else as a user
types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import eventually
from tests.support.processes import environment
from tests.support.up import Up

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def up(servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running pipeline on the shared servers, under a prefix of its own."""
    folder = tmp_path_factory.mktemp("up")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    with Up(env, folder / "up.log") as running:
        running.said["environment"] = env
        yield running


@pytest.fixture
def run(up: Up) -> Run:
    """One command line under the pipeline's environment."""
    env = up.said["environment"] | {"COLUMNS": "160"}

    def invoke(*arguments: str, code: int = Exit.OK) -> Result:
        result = CliRunner().invoke(app, arguments, env=env)
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def answer(run: Run) -> Callable[..., Any]:
    """The JSON answer of one command line."""

    def invoke(*arguments: str, code: int = Exit.OK) -> Any:
        return json.loads(run(*arguments, "-o", "json", code=code).stdout)

    return invoke


def name(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def test_up_names_servers_and_processes(up: Up, servers: ServersAddress) -> None:
    assert up.said["kafka_bootstrap_servers"] == servers.bootstrap_servers
    assert up.said["embedded"] is False
    assert set(up.said["pids"]) == {
        "gateway",
        "processor",
        "saga-processor",
        "reactor",
        "payments",
        "webhooks",
        "projector",
        "indexer",
    }


def test_an_order_goes_from_send_to_every_query(run: Run, answer: Callable[..., Any]) -> None:
    user, sku, order = name("user"), name("sku"), name("order")
    item = '{"description": "Lantern", "opening_stock": 5}'
    lines = f'[{{"sku": "{sku}", "quantity": 2, "unit_price": 339}}]'
    new = f'{{"user_id": "{user}", "currency": "GBP", "lines": {lines}}}'
    for arguments in (
        ("RegisterUser", user, "--json", '{"name": "Ada"}'),
        ("RegisterItem", sku, "--json", item),
        ("CreateOrder", order, "--json", new),
    ):
        assert answer("send", *arguments, "--wait")["status"] == "accepted"

    eventually(lambda: _found(run, "query", "order", order))
    assert answer("query", "order", order)["total"] == 678
    eventually(lambda: _found(run, "query", "user", user))
    eventually(lambda: len(answer("query", "orders", user)["orders"]) == 1)
    eventually(lambda: _found(run, "query", "stock", sku))
    assert answer("query", "stock", sku)["available"] == 5
    assert sku in [row["sku"] for row in answer("query", "low-stock")]
    assert user in [row["user_id"] for row in answer("query", "top-users")]
    for query in (
        ("order", order),
        ("user", user),
        ("orders", user),
        ("stock", sku),
        ("low-stock",),
        ("top-users",),
    ):
        assert run("query", *query).stdout.strip()


def _found(run: Run, *arguments: str) -> bool:
    try:
        run(*arguments)
    except AssertionError:
        return False
    return True


def test_a_rejection_is_exit_code_1_with_its_reason(run: Run, answer: Callable[..., Any]) -> None:
    arguments = ("send", "ConfirmOrder", name("nothing"), "--wait")
    outcome = answer(*arguments, code=Exit.NO)
    assert outcome["code"] == "order_not_found"
    assert "order_not_found" in run(*arguments, code=Exit.NO).stdout


def test_the_same_command_id_twice_is_carried_out_once(answer: Callable[..., Any]) -> None:
    user = name("user")
    arguments = ("send", "RegisterUser", user, "--json", '{"name": "Ada"}', "--wait")
    first = answer(*arguments, "--command-id", f"once-{user}")
    assert answer(*arguments, "--command-id", f"once-{user}") == first
    assert answer(*arguments, code=Exit.NO)["code"] == "user_already_registered"


def test_expected_version_is_passed_on(answer: Callable[..., Any]) -> None:
    arguments = ("send", "RegisterUser", name("user"), "--json", '{"name": "Ada"}', "--wait")
    refused = answer(*arguments, "--expected-version", "3", code=Exit.NO)
    assert refused["code"] == "version_conflict"


def test_send_without_wait_says_under_which_id(answer: Callable[..., Any]) -> None:
    sent = answer("send", "RegisterUser", name("user"), "--json", '{"name": "Ada"}')
    assert sent["status"] == "sent"
    assert sent["command_id"].startswith("cli-")


def test_what_is_not_there_is_exit_code_1(run: Run) -> None:
    for query in (("order", "no-such"), ("user", "no-such"), ("stock", "no-such")):
        result = run("query", *query, code=Exit.NO)
        assert "no-such" in result.stderr
        assert "Traceback" not in result.output


def test_topics_are_listed_and_a_difference_is_found_and_mended(
    run: Run, answer: Callable[..., Any], up: Up
) -> None:
    specs = list(topics_of(Settings.model_validate(up.said["environment"])).specs())
    assert [row["name"] for row in answer("topics", "list")] == [spec.name for spec in specs]
    assert answer("topics", "diff") == []
    _alter(up, specs[0].name, "retention.ms", "12345678")
    eventually(lambda: CliRunner().invoke(app, ("topics", "diff"), env=_env(up)).exit_code == 1)
    assert [row["name"] for row in answer("topics", "diff", code=Exit.NO)] == [specs[0].name]
    assert [row["name"] for row in answer("topics", "apply")["changed"]] == [specs[0].name]
    eventually(lambda: CliRunner().invoke(app, ("topics", "diff"), env=_env(up)).exit_code == 0)


def _env(up: Up) -> dict[str, str]:
    environment: dict[str, str] = up.said["environment"]
    return environment


def _alter(up: Up, topic: str, option: str, value: str) -> None:
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    from runtime import kafka

    entry = ConfigEntry(option, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient(kafka.admin(Settings.model_validate(_env(up))))
    for future in client.incremental_alter_configs([resource]).values():
        future.result()


def test_another_partition_count_is_exit_code_5(up: Up) -> None:
    env = _env(up) | {"ORDERFLOW_PARTITIONS": "3"}
    result = CliRunner().invoke(app, ("topics", "apply"), env=env)
    assert result.exit_code == Exit.UNFIT
    assert "ORDERFLOW_PARTITIONS" in result.stderr


def test_without_a_processor_waiting_ends_with_exit_code_4(up: Up) -> None:
    env = _env(up) | {"ORDERFLOW_TOPIC_PREFIX": f"t{uuid.uuid4().hex[:12]}"}
    assert CliRunner().invoke(app, ("topics", "apply"), env=env).exit_code == Exit.OK
    arguments = (
        "send",
        "RegisterUser",
        "u-1",
        "--json",
        '{"name": "A"}',
        "--wait",
        "--timeout",
        "2",
    )
    result = CliRunner().invoke(app, arguments, env=env)
    assert result.exit_code == Exit.TIMEOUT
    assert "same id" in result.stderr


def test_the_doctor_finds_nothing_wrong(answer: Callable[..., Any]) -> None:
    found = {finding["what"]: finding["mark"] for finding in answer("doctor")}
    assert found["kafka"] == found["redis"] == found["topics"] == "ok"


def test_a_broker_that_is_not_there_is_exit_code_3(up: Up) -> None:
    env = _env(up) | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    result = CliRunner().invoke(app, ("topics", "list"), env=env)
    assert result.exit_code == Exit.UNREACHABLE
    assert "doctor" in result.stderr


def test_a_redis_that_is_not_there_is_exit_code_3(up: Up) -> None:
    env = _env(up) | {"REDIS_URL": "redis://127.0.0.1:1/0"}
    result = CliRunner().invoke(app, ("query", "low-stock"), env=env)
    assert result.exit_code == Exit.UNREACHABLE
    assert "Redis" in result.stderr


def test_rebuild_proves_that_nothing_changed(answer: Callable[..., Any]) -> None:
    assert answer("rebuild")["equal"] is True


def test_up_starts_a_killed_processor_again(up: Up, answer: Callable[..., Any]) -> None:
    pid = up.said["pids"]["processor"]
    os.kill(pid, signal.SIGKILL)
    sent = answer("send", "RegisterUser", name("user"), "--json", '{"name": "Ada"}', "--wait")
    assert sent["status"] == "accepted"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_with_its_own_servers_leaves_nothing_behind(tmp_path: Path, signum: int) -> None:
    env = {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": "", "ORDERFLOW_HOME": str(tmp_path / "home")}
    with Up(env, tmp_path / "up.log") as up:
        assert up.said["embedded"] is True
        everybody = psutil.Process(up.process.pid).children(recursive=True)
        assert len(everybody) >= 4  # two roles, two servers
        listed = subprocess.run(
            [sys.executable, "-m", "orderflow", "topics", "list", "-o", "json"],
            env={**os.environ, **env},
            capture_output=True,
            check=True,
        )
        assert json.loads(listed.stdout)
        assert up.stop(signum) == (-signum if signum == signal.SIGKILL else 0)
    eventually(lambda: not any(_alive(process) for process in everybody), timeout=40)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
