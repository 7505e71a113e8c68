"""A user is forgotten on real servers: nothing of them is found anywhere, all else is as before."""

from __future__ import annotations

import dataclasses
import json
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from eventstore import EventStore
from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.lag import wait_for_views
from processors.state_store import PartitionCopy
from readmodels import Queries, rebuild
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.personal import FORGOTTEN
from schemas.records import encode
from schemas.rejections import Code
from tests.support.commanding import command, eventually
from tests.support.compaction import compact
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.topics import read_topic

NAME = f"Ada{uuid.uuid4().hex}"
EMAIL = f"{uuid.uuid4().hex}@example.org"
WHY = f"moved-{uuid.uuid4().hex}"
PERSONAL = (NAME.encode(), EMAIL.encode(), WHY.encode())


def found_in(texts: Iterable[bytes]) -> list[bytes]:
    """Which of the personal texts stand in any of these."""
    whole = b"\n".join(texts)
    return [text for text in PERSONAL if text in whole]


def on_topic(settings: Settings, topic: str) -> Iterator[bytes]:
    for record in read_topic(settings, topic):
        yield record.key or b""
        yield record.value or b""
        yield repr(record.headers).encode()


def on_disk(home: Path) -> Iterator[bytes]:
    """Every file below the processors' folders."""
    for file in home.rglob("*"):
        if file.is_file():
            yield file.read_bytes()


def in_redis(settings: Settings) -> Iterator[bytes]:
    """Every key of this prefix, and all that stands under it."""
    with closing(connect(settings, text=False)) as client:
        for key in client.scan_iter(match=f"{settings.topic_prefix}*", count=1_000):
            yield key
            match client.type(key):
                case b"hash":
                    yield repr(client.hgetall(key)).encode()
                case b"zset":
                    yield repr(client.zrange(key, 0, -1)).encode()
                case b"set":
                    yield repr(client.smembers(key)).encode()
                case b"string":
                    yield repr(client.get(key)).encode()
                case other:
                    raise AssertionError(f"{key!r} is a {other!r}")


def everything_shown(store: EventStore, user_id: str) -> Iterator[bytes]:
    """What the event store tells of a user, in each way that it has."""
    stream = f"user/{user_id}"
    yield repr(store.get_stream(stream)).encode()
    yield repr(store.states(stream)).encode()
    yield repr(store.timeline(stream)).encode()
    yield repr(list(store.replay(["user"]))).encode()
    for correlation_id in {event.correlation_id for event in store.get_stream(stream)}:
        yield repr(store.conversation(correlation_id or "")).encode()


def what_stays(settings: Settings, users: Iterable[str]) -> Any:
    """Counts, stock and money, as the views have them."""
    with Queries(settings) as queries:
        found = [queries.user(user_id) for user_id in users]
        return (
            [(u.orders, dict(u.by_status), dict(u.spent)) for u in found if u],
            queries.stock("MUG"),
            queries.top_users("orders"),
            queries.orders_of("ada"),
        )


class World:
    """One pipeline; the user ada has ordered, and eve is there besides."""

    def __init__(self, servers: ServersAddress, folder: Path) -> None:
        self.home = folder / "home"
        self.env = environment(servers, f"t{uuid.uuid4().hex[:12]}", self.home)
        self.settings = Settings.model_validate(self.env)
        topic_admin.apply(self.settings)

    def fill(self) -> None:
        lines = [{"sku": "MUG", "quantity": 2, "unit_price": 700}]
        order: dict[str, Any] = {"currency": "EUR", "lines": lines}
        with CommandClient(self.settings) as client:
            for each in (
                command("ada", "RegisterUser", name=NAME, email=EMAIL),
                command("eve", "RegisterUser", name="Eve", email="eve@example.org"),
                command("MUG", "RegisterItem", description="Mug", opening_stock=9),
                command("MUG", "ReserveStock", reservation_id="o-1", quantity=2),
                command("o-1", "CreateOrder", user_id="ada", **order),
                command("o-2", "CreateOrder", user_id="ada", **order),
                command("o-3", "CreateOrder", user_id="eve", **order),
                command("o-2", "CancelOrder", reason="too late"),
                command("ada", "DeactivateUser", reason=WHY),
            ):
                outcome = client.execute(each, READY_WITHIN_S)
                assert outcome.accepted, outcome
        wait_for_views(self.settings, READY_WITHIN_S)

    def forget(self, *arguments: str, code: int = Exit.OK) -> Any:
        words = ["forget", "user", "ada", "--by", "ann", *arguments, "-o", "json"]
        done = CliRunner().invoke(app, words, env=self.env)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)


def test_nothing_is_left_of_who_is_forgotten_and_everything_else_is_as_before(
    servers: ServersAddress, tmp_path: Path
) -> None:
    world = World(servers, tmp_path)
    settings, topics = world.settings, topics_of(world.settings)
    with (
        RoleProcess("processors", world.env, tmp_path / "processor.log"),
        RoleProcess("readmodels", world.env, tmp_path / "projector.log"),
        EventStore(settings) as store,
    ):
        world.fill()
        before = what_stays(settings, ("ada", "eve"))
        # As long as ada is known, it is all there: else what follows would prove nothing.
        assert found_in(on_topic(settings, topics.events("user"))) == [*PERSONAL[:2]]
        assert found_in(on_disk(world.home)) == [*PERSONAL[:2]]
        assert found_in(in_redis(settings)) == [*PERSONAL[:2]]
        assert found_in(everything_shown(store, "ada")) == [*PERSONAL]
        assert not found_in(on_topic(settings, topics.history("user")))

        answer = world.forget("--reason", "request-17")
        assert answer["outcome"]["status"] == "accepted"
        left = {each["where"] for each in answer["remains"]}
        assert left == {
            topics.commands("user"),
            topics.events("user"),
            topics.parked("user"),
            "ORDERFLOW_HOME of processors",
        }

        compact(settings, topics.events("user"))
        for topic in (
            topics.events("user"),
            topics.history("user"),
            topics.outcomes("user"),
            topics.replies,
            topics.dead_letters,
        ):
            assert not found_in(on_topic(settings, topic)), topic
        eventually(lambda: not found_in(on_disk(world.home)))
        assert not found_in(in_redis(settings))
        assert not found_in(everything_shown(store, "ada"))
        with EventStore(settings) as another:
            assert not found_in(everything_shown(another, "ada"))
        first = store.get_stream("user/ada")[0]
        assert first.json == {"name": FORGOTTEN, "email": FORGOTTEN}
        assert store.get_stream("user/eve")[0].json["name"] == "Eve"

        assert what_stays(settings, ("ada", "eve")) == before
        with Queries(settings) as queries:
            ada, eve = queries.user("ada"), queries.user("eve")
            assert ada is not None
            assert ada.profile is None
            assert eve is not None
            assert eve.profile is not None
        keys = []
        for _ in range(2):
            report = rebuild(settings)
            assert report.equal, report
            keys.append([(view.view, view.keys) for view in report.views])
        assert keys[0] == keys[1]
        assert not found_in(in_redis(settings))
        assert what_stays(settings, ("ada", "eve")) == before

        with CommandClient(settings) as client:
            late = client.execute(command("ada", "RegisterUser", name="Ada"))
            assert late.code is Code.USER_FORGOTTEN
        again = world.forget()
        assert again["outcome"]["status"] == "accepted"
        assert again["outcome"]["version"] == 3
        check_log(settings)


@pytest.mark.parametrize("days", [-9_000, -3, 2_000_000], ids=["long ago", "before", "to come"])
def test_what_is_left_goes_when_it_is_said_whatever_time_the_command_claims(
    servers: ServersAddress, tmp_path: Path, days: int
) -> None:
    world = World(servers, tmp_path)
    day_ms = 24 * 3_600_000
    with (
        RoleProcess("processors", world.env, tmp_path / "processor.log"),
        RoleProcess("readmodels", world.env, tmp_path / "projector.log"),
        CommandClient(world.settings) as client,
    ):
        client.execute(command("ada", "RegisterUser", name=NAME), READY_WITHIN_S)
        now_ms = time.time_ns() // 1_000_000
        forget = command("ada", "ForgetUser", by="ann")
        claimed = dataclasses.replace(forget, occurred_at_ms=now_ms + days * day_ms)
        assert client.execute(claimed).accepted
        ends = [each["until_ms"] for each in world.forget()["remains"]]
        assert len(ends) >= 4
        assert all(now_ms < end < now_ms + 100 * day_ms for end in ends)


def test_who_was_never_registered_cannot_be_forgotten(
    servers: ServersAddress, tmp_path: Path
) -> None:
    world = World(servers, tmp_path)
    with RoleProcess("processors", world.env, tmp_path / "processor.log"):
        with CommandClient(world.settings) as client:
            client.execute(command("eve", "RegisterUser", name="Eve"), READY_WITHIN_S)
        answer = world.forget(code=Exit.NO)
        assert answer["outcome"]["code"] == "user_not_found"
        assert answer["remains"] == []


def test_a_processor_killed_around_it_forgets_all_the_same(
    servers: ServersAddress, tmp_path: Path
) -> None:
    world = World(servers, tmp_path)
    settings = world.settings
    users = [f"u-{number}" for number in range(3)]
    with CommandClient(settings) as client:
        with RoleProcess("processors", world.env, tmp_path / "first.log"):
            for user_id in users:
                registered = command(user_id, "RegisterUser", name=NAME, email=EMAIL)
                client.execute(registered, READY_WITHIN_S)
        assert found_in(on_disk(world.home))
        seed = random.Random(17)
        for user_id in users:
            with RoleProcess("processors", world.env, tmp_path / f"{user_id}.log") as victim:
                eventually(lambda log=victim: "ready" in log.text(), READY_WITHIN_S)  # type: ignore[misc]
                client.send(command(user_id, "ForgetUser", command_id="f", by="ann"))
                client.flush(10)
                time.sleep(seed.uniform(0, 0.15))
                victim.kill()
        with RoleProcess("processors", world.env, tmp_path / "last.log"):
            for user_id in users:
                outcome = client.execute(
                    command(user_id, "ForgetUser", command_id="f", by="ann"), READY_WITHIN_S
                )
                assert (outcome.accepted, outcome.version) == (True, 2)
            eventually(lambda: not found_in(on_disk(world.home)))
    check_log(settings)


def test_what_was_forgotten_is_off_the_disk_before_the_copy_says_that_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = b'{"type":"UserRegistered","state":{"name":"' + NAME.encode() + b'"}}'
    gone = b'{"type":"UserForgotten","state":{"name":""}}'
    copy = PartitionCopy(tmp_path / "states", "topic")
    copy.write({b"ada": known}, 7)
    assert found_in(on_disk(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(PartitionCopy, "_erase", _killed)
        with pytest.raises(KeyboardInterrupt):
            copy.write({b"ada": gone}, 8)
    assert copy.next_offset == 7
    copy.write({b"ada": gone}, 8)
    assert copy.next_offset == 8
    assert not found_in(on_disk(tmp_path))
    assert copy.get(b"ada") == gone
    copy.close()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_dead_letters_of_who_is_forgotten_are_named(
    servers: ServersAddress, tmp_path: Path
) -> None:
    world = World(servers, tmp_path)
    settings, topics = world.settings, topics_of(world.settings)
    with (
        RoleProcess("processors", world.env, tmp_path / "processor.log"),
        RoleProcess("readmodels", world.env, tmp_path / "projector.log"),
        CommandClient(settings) as client,
    ):
        client.execute(command("ada", "RegisterUser", command_id="r", name="A"), READY_WITHIN_S)
        client.execute(command("ada", "RegisterUser", command_id="r", name=NAME))
        assert found_in(on_topic(settings, topics.dead_letters))
        left = world.forget()["remains"]
        lasting = [each for each in left if each["until_ms"] is None]
        assert [each["where"] for each in lasting] == [f"{topics.dead_letters}-0@0"]
        assert not found_in([json.dumps(left).encode()])


def test_what_an_older_release_wrote_in_the_clear_is_read_and_named(
    servers: ServersAddress, tmp_path: Path
) -> None:
    world = World(servers, tmp_path)
    settings, topics = world.settings, topics_of(world.settings)
    data = {"name": NAME, "email": None}
    old = {"type": "UserRegistered", "id": "c:0", "version": 1, "occurred_at_ms": 5, "data": data}
    state = {"status": "active", **data, "registered_at_ms": 5, "updated_at_ms": 5}
    with CommandClient(settings) as client, EventStore(settings) as store:
        with RoleProcess("processors", world.env, tmp_path / "before.log") as before:
            # Refused, and so the group has an offset on the partition where ada is.
            client.execute(command("ada", "ValidateUser"), READY_WITHIN_S)
            before.stop()
        producer = Producer(kafka.producer(settings))
        producer.produce(topics.history("user"), encode(old), b"ada")
        producer.produce(topics.events("user"), encode({**old, "state": state}), b"ada")
        producer.flush(10)
        assert store.get_stream("user/ada")[0].json == data
        with (
            RoleProcess("processors", world.env, tmp_path / "processor.log"),
            RoleProcess("readmodels", world.env, tmp_path / "projector.log"),
        ):
            client.execute(command("ada", "DeactivateUser", reason=WHY), READY_WITHIN_S)
            assert store.get_stream("user/ada")[1].json == {"reason": WHY}
            left = world.forget()["remains"]
        shown = [event.json for event in store.get_stream("user/ada")]
        assert shown[0] == data
        assert shown[1] == {"reason": FORGOTTEN}
        lasting = [each for each in left if each["until_ms"] is None]
        assert [each["what"] for each in lasting] == [
            "UserRegistered, written before events were sealed"
        ]
        assert lasting[0]["where"].startswith(f"{topics.history('user')}-")
