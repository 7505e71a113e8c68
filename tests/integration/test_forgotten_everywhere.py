"""After `forget` and the dates that it prints, no file of the pipeline has the name: not Kafka's segments,
not Redis' files, not the local copies, not the SQL target.
"""

from __future__ import annotations

import fcntl
import json
import time
import uuid
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.forgetting import expires_within_ms
from orderflow.lag import wait_for_views
from processors import erasure
from processors.erasure import AbandonedCopies, needs_record
from processors.state_store import PartitionCopy
from runtime import kafka, topic_admin
from runtime.client import CommandClient, CommandParked
from runtime.embedded import EmbeddedServers
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.topics import ERASED_WITHIN_MS, Topics
from tests.conftest import EmbeddedFactory
from tests.support.commanding import command, eventually, parking_order
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S

NAME = f"Ada{uuid.uuid4().hex}"
EMAIL = f"{uuid.uuid4().hex}@example.org"
SOON = {"segment.ms": "500", "file.delete.delay.ms": "100"}
EXPIRED = SOON | {"retention.ms": "2000"}
COMPACTED = SOON | {
    "min.cleanable.dirty.ratio": "0.0",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "100",
}
OFFSETS_ONLY = {".index", ".timeindex", ".txnindex", ".snapshot"}
"""Files of Kafka that hold no record, and are long because they are reserved."""


def forms(text: str) -> list[bytes]:
    """The bytes of a text, and what base64 makes of them wherever they stand in what was encoded."""
    plain = text.encode()
    encoded = (b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3))
    return [plain, *encoded]


def files_with(folder: Path, *texts: str) -> list[str]:
    """Every file below a folder that has one of the texts in it, in the clear or as base64."""
    found = []
    wanted = [form for text in texts for form in forms(text)]
    for file in folder.rglob("*"):
        try:
            if file.is_file() and file.suffix not in OFFSETS_ONLY:
                data = file.read_bytes()
                found += [str(file.relative_to(folder))] * any(one in data for one in wanted)
        except FileNotFoundError:
            continue  # deleted meanwhile
    return found


def alter(settings: Settings, topic: str, config: dict[str, str]) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = AdminClient(kafka.admin(settings))  # its futures fail when it is collected before them
    for future in client.incremental_alter_configs([resource]).values():
        future.result()


def run(env: dict[str, str], *words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "-o", "json"], env=env)
    assert done.exit_code == Exit.OK, done.output
    return json.loads(done.stdout)


@pytest.fixture
def running(embedded_factory: EmbeddedFactory, tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A pipeline all of whose files are below one folder."""
    home = tmp_path / "home"
    servers: EmbeddedServers = embedded_factory(home)
    env = environment(servers.address, f"t{uuid.uuid4().hex[:12]}", home)
    return env | {"BUG": str(tmp_path / "bug")}, home


def test_no_file_has_the_name_when_the_dates_have_come(
    running: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    env, home = running
    settings = Settings.model_validate(env)
    topics = topics_of(settings)
    topic_admin.apply(settings)
    bug = Path(env["BUG"])
    registered = command("ada", "RegisterUser", name=NAME, email=EMAIL)
    with RoleProcess("readmodels", env, tmp_path / "projector.log"), CommandClient(settings) as ask:
        with RoleProcess("processors", env, tmp_path / "first.log") as first:
            assert ask.execute(registered, READY_WITHIN_S).accepted
            assert ask.execute(command("eve", "RegisterUser", name="Eve")).accepted
            wait_for_views(settings, READY_WITHIN_S)
            first.stop()
        assert files_with(home / "processor" / "0", NAME)
        # Another slot takes over: what the first one has is nobody's now.
        with (home / "processor" / "0.lock").open("a+") as taken:
            fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
            second = RoleProcess("tests.support.eager_processor", env, tmp_path / "second.log")
            eventually((home / "processor" / "1").exists, READY_WITHIN_S)
        with second:
            offset = wait_behind_a_bug(ask, bug)
            run(env, "rebuild")
            run(env, "sync", "sql", "--once")
            before = files_with(home, NAME)
            for place in ("kafka/data/", "redis/", "processor/1/", "views.sqlite3"):
                assert any(file.startswith(place) for file in before), (place, before)
            assert any(f"{topics.parked('user')}-" in file for file in before), before

            bug.unlink()
            order = parking_order("user", "ada", "RetryParked", offset)
            assert ask.execute(order, READY_WITHIN_S).accepted
            answer = run(env, "forget", "user", "ada", "--by", "ann")
            left = {each["where"]: each for each in answer["remains"]}
            assert all(
                each["until_ms"] is not None or "dead-letters" in where
                for where, each in left.items()
            ), left
            assert not files_with(home / "redis", NAME, EMAIL)
            with closing(connect(settings)) as client:
                assert not list(client.scan_iter("*:users:g*:user:ada"))
            run(env, "sync", "sql", "--once")
            still = files_with(home, NAME, EMAIL)
            assert all(file.startswith(("kafka/data/", "processor/0/")) for file in still), still

            # The dates come.
            alter(settings, topics.commands("user"), EXPIRED)
            for topic in (topics.events("user"), topics.parked("user")):
                alter(settings, topic, COMPACTED)
            eventually(lambda: not files_with(home, NAME, EMAIL), 180, every=1.0)
            assert ask.execute(command("bob", "RegisterUser", name="Bob"), READY_WITHIN_S).accepted
    check_log(settings)


def wait_behind_a_bug(ask: CommandClient, bug: Path) -> int:
    """Have a command with her name wait behind one that cannot be judged; returns the latter's offset."""
    bug.touch()
    with pytest.raises(CommandParked) as parked:
        ask.execute(command("ada", "DeactivateUser", reason="poison"), READY_WITHIN_S)
    with pytest.raises(CommandParked):
        ask.execute(command("ada", "RegisterUser", name=NAME, email=EMAIL), READY_WITHIN_S)
    offset: int = parked.value.notice.offset
    return offset


def test_what_waited_is_off_the_disk_when_it_waits_no_more(tmp_path: Path) -> None:
    copy = PartitionCopy(tmp_path / "parked", "topic", erases=True)
    copy.write({b"ada/1": NAME.encode(), b"eve/2": b"Eve"}, 1)
    assert files_with(tmp_path, NAME)
    copy.write({b"ada/1": None, b"bob/3": None}, 2)
    assert not files_with(tmp_path, NAME)
    assert copy.get(b"eve/2") == b"Eve"
    copy.close()


def test_copies_that_nobody_uses_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = tmp_path / "processor"
    mine, other, gone = (role / number for number in "012")
    copies = {
        slot: [slot / "orderflow" / f"{name}-0" for name in ("user", "order")]
        for slot in (mine, other, gone)
    }
    role.mkdir()
    for slot, paths in copies.items():
        (role / f"{slot.name}.lock").touch()
        for path in paths:
            (path / "states").mkdir(parents=True)
            (path / "states" / "1.sst").write_text(NAME)
    in_use = copies[mine][0]
    with (role / "1.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        AbandonedCopies(mine).remove({in_use})
        assert all(path.exists() for paths in copies.values() for path in paths)
        later = time.time() + ERASED_WITHIN_MS / 1_000 + 1
        monkeypatch.setattr(time, "time", lambda: later)
        AbandonedCopies(mine).remove({in_use})
    there = {path for paths in copies.values() for path in paths if path.exists()}
    assert there == {in_use, *copies[other], copies[mine][1], copies[gone][1]}


def test_an_idle_partition_gets_a_record_once_in_a_while() -> None:
    every = erasure.ROLL_EVERY_MS
    assert not needs_record(None, 0, 10 * every)
    assert not needs_record(10 * every - 1, 0, 10 * every)
    assert needs_record(9 * every, 0, 10 * every)
    assert not needs_record(9 * every, 10 * every - 1, 10 * every)


def test_a_date_counts_the_whole_segment_and_the_brokers_look() -> None:
    for spec in Topics("p", 1).specs():
        retention = int(spec.config.get("retention.ms", "-1"))
        if retention > 0:
            segment = int(spec.config.get("segment.ms", str(7 * 86_400_000)))
            assert expires_within_ms(spec) >= retention + segment + 300_000 + 60_000
