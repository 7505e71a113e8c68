"""Clients that wait for replies on a real broker: each caller gets its own, whatever else comes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from orderflow.placing import NotPlaced, StillRunning, order_command
from runtime import kafka, topic_admin
from runtime.client import (
    CROWDED,
    AsyncCommandClient,
    CommandClient,
    OutcomeTimeout,
    OutgoingCommand,
)
from runtime.embedded import EmbeddedKafka, ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from runtime.waiting import (
    ClientClosed,
    ClientForked,
    ReaderDied,
    RepliesMissed,
    UnreadableReply,
    token_of,
)
from schemas import headers
from schemas.ids import end_key, reply_key
from schemas.records import encode
from schemas.rejections import Code
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment


@pytest.fixture
def own_env(servers: ServersAddress, prefix: str, tmp_path: Path) -> dict[str, str]:
    """Topics of the test's own, made here; no processor runs unless the test starts one."""
    env = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(env))
    return env


@pytest.fixture
def own_settings(own_env: dict[str, str]) -> Settings:
    return Settings.model_validate(own_env)


@pytest.fixture
def client(own_settings: Settings) -> Iterator[CommandClient]:
    with CommandClient(own_settings) as client:
        yield client


@contextmanager
def processor(env: dict[str, str], folder: Path, role: str = "processors") -> Iterator[None]:
    with RoleProcess(role, env, folder / f"{role}-{time.monotonic_ns()}.log"):
        yield


def reply(
    client: CommandClient, settings: Settings, key: bytes, value: bytes, token: bytes | None
) -> None:
    """A reply as some release's processor might write it, where the client reads."""
    producer = Producer(kafka.producer(settings))
    marks: Any = [] if token is None else [(headers.REPLY_TOKEN, token)]
    partition = client.reply_reader().partition
    producer.produce(topics_of(settings).replies, value, key, partition, headers=marks)
    assert producer.flush(20) == 0


def key_of(command: OutgoingCommand) -> bytes:
    return reply_key(command.aggregate, command.aggregate_id, command.command_id)


def accepted(command: OutgoingCommand, **more: object) -> bytes:
    outcome: dict[str, object] = {
        "command_id": command.command_id, "type": command.type, "aggregate": command.aggregate,
        "aggregate_id": command.aggregate_id, "status": "accepted", "version": 1, "decided_at_ms": 1,
    }  # fmt: skip
    return encode(outcome | more)


def test_a_time_out_of_one_caller_touches_no_other(
    client: CommandClient, own_env: dict[str, str], tmp_path: Path
) -> None:
    ada = command("ada", "RegisterUser", name="Ada")
    with ThreadPoolExecutor(4) as threads:
        patient = [threads.submit(client.execute, ada, 60) for _ in range(3)]
        with pytest.raises(OutcomeTimeout):
            client.execute(ada, timeout=0.3)
        with processor(own_env, tmp_path):
            assert [future.result(60).version for future in patient] == [1, 1, 1]


def test_a_time_out_of_one_task_cancels_no_other(
    own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    ada = command("ada", "RegisterUser", name="Ada")

    async def both() -> None:
        async with AsyncCommandClient(own_settings) as client:
            patient = asyncio.create_task(client.execute(ada, 60))
            with pytest.raises(OutcomeTimeout):
                await client.execute(ada, timeout=0.3)
            with processor(own_env, tmp_path):
                assert (await patient).version == 1

    asyncio.run(both())


def test_a_caller_with_another_payload_gets_an_answer_of_its_own(
    client: CommandClient, own_env: dict[str, str], tmp_path: Path
) -> None:
    ada = command("ada", "RegisterUser", name="Ada", command_id="c")
    bob = command("ada", "RegisterUser", name="Bob", command_id="c")
    futures = [client.submit(each) for each in (ada, bob, ada, bob)]
    with processor(own_env, tmp_path):
        first, second, third, fourth = (future.result(60) for future in futures)
    assert (first.accepted, third.accepted) == (True, True)
    assert (second.code, fourth.code) == (Code.COMMAND_ID_REUSED, Code.COMMAND_ID_REUSED)


def test_an_order_with_other_contents_does_not_get_the_end_of_the_first(
    client: CommandClient, own_settings: Settings
) -> None:
    """Both wait for the end of the same saga; only one of them has started it."""
    order = order_command(
        "o-1",
        user_id="ada",
        lines=[{"sku": "A", "quantity": 1, "unit_price": 1}],
        currency="EUR",
        payment_token="tok",
    )
    outcome, end = client.submit_and_follow(order)
    other_outcome, other_end = client.submit_and_follow(replace(order, data=b'{"saga":"x"}'))
    reply(client, own_settings, key_of(order), accepted(order), token_of(order.value()))
    value = b'{"saga_id":"o-1","saga":"create_order","status":"completed"}'
    reply(client, own_settings, end_key("o-1"), value, None)
    assert outcome.result(20).accepted
    assert end.result(20).status == "completed"
    assert not other_outcome.done()
    assert other_end.result(20).saga_id == "o-1", "so callers look at their outcome first"


@pytest.mark.parametrize("token", ["", None])
def test_a_reply_that_is_anothers_or_of_an_older_release(
    client: CommandClient, own_settings: Settings, token: str | None
) -> None:
    """With a token that is not its own it is not taken; without any it is, for old processors send none."""
    ada = command("ada", "RegisterUser", name="Ada")
    future = client.submit(ada)
    reply(client, own_settings, key_of(ada), accepted(ada), None if token is None else b"other")
    if token is None:
        assert future.result(20).accepted
    else:
        reply(client, own_settings, key_of(ada), accepted(ada, version=7), token_of(ada.value()))
        assert future.result(20).version == 7


def test_a_code_that_this_release_does_not_know_is_an_answer(
    client: CommandClient, own_settings: Settings
) -> None:
    ada = command("ada", "RegisterUser", name="Ada")
    future = client.submit(ada)
    value = accepted(ada, status="rejected", code="of_a_newer_release", message="m", more=[1])
    reply(client, own_settings, key_of(ada), value, token_of(ada.value()))
    outcome = future.result(20)
    assert not outcome.accepted
    assert outcome.code is not None
    assert (outcome.code, outcome.code.known) == ("of_a_newer_release", False)


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[1]", b"\xff", b"[" * 100_000 + b"]" * 100_000, b'{"status":"maybe"}', b"null"],
    ids=["empty", "cut", "list", "no-utf8", "deep", "status", "null"],
)
def test_a_reply_that_cannot_be_read_fails_its_caller_and_nobody_else(
    client: CommandClient, own_settings: Settings, value: bytes
) -> None:
    ada, bob = command("ada", "RegisterUser", name="A"), command("bob", "RegisterUser", name="B")
    broken, fine = client.submit(ada), client.submit(bob)
    _, end = client.submit_and_follow(replace(ada, aggregate="saga", aggregate_id="o-1"))
    notice = b"parked/" + key_of(ada)
    reply(client, own_settings, notice, value, token_of(ada.value()))
    reply(client, own_settings, key_of(ada), value, token_of(ada.value()))
    reply(client, own_settings, end_key("o-1"), value, None)
    reply(client, own_settings, key_of(bob), accepted(bob), token_of(bob.value()))
    assert fine.result(20).accepted
    for future in (broken, end):
        assert isinstance(future.exception(20), UnreadableReply)


def test_futures_end_when_the_client_is_closed(own_settings: Settings) -> None:
    client = CommandClient(own_settings)
    ada = command("ada", "RegisterUser", name="Ada")
    future, (outcome, end) = client.submit(ada), client.submit_and_follow(ada)
    client.close()
    for each in (future, outcome, end):
        assert isinstance(each.exception(0), ClientClosed)
    for call in (client.send, client.submit, client.submit_and_follow, client.execute):
        with pytest.raises(ClientClosed):
            call(ada)
    client.close()


def test_a_client_made_before_a_fork_says_so(client: CommandClient) -> None:
    ada = command("ada", "RegisterUser", name="Ada")
    waiting = client.submit(ada)
    calls: list[Any] = [
        lambda: client.send(ada),
        lambda: client.submit(ada),
        lambda: client.execute(ada, 20),
        client.flush,
        lambda: waiting.result(20),
    ]
    child = os.fork()
    if child == 0:
        said = 0
        for call in calls:
            try:
                call()
            except ClientForked:
                said += 1
            finally:
                if said == 0:
                    os._exit(100)
        client.close()
        os._exit(said)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == len(calls)
    waiting.cancel()


def delete_replies(client: CommandClient, settings: Settings) -> None:
    """What retention does: the client's partition begins behind everything that was ever on it."""
    admin = AdminClient(kafka.admin(settings))
    place = topics_of(settings).replies, client.reply_reader().partition
    (end,) = kafka.end_offsets(admin, [place], 30).values()
    for future in admin.delete_records([TopicPartition(*place, end)]).values():
        future.result()


def test_an_idle_client_still_gets_replies_after_retention_has_emptied_the_topic(
    client: CommandClient, own_settings: Settings, own_env: dict[str, str], tmp_path: Path
) -> None:
    """Its position is before the marker of the last transaction, and the log now begins after that."""
    with processor(own_env, tmp_path):
        assert client.execute(command("ada", "RegisterUser", name="Ada"), 60).accepted
        delete_replies(client, own_settings)
        for n in range(3):
            assert client.execute(command(f"bob-{n}", "RegisterUser", name="B"), 60).accepted


def test_who_waited_while_replies_were_deleted_is_told(
    client: CommandClient,
    own_settings: Settings,
    own_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client stands still, its reply is written and deleted, and it goes on."""
    reader = client.reply_reader()
    real = kafka.what_came
    stopped, resumed = Future[None](), Future[None]()

    def standing_still(consumer: Any, most: int, wait_s: float) -> Any:
        if consumer is reader._consumer and not resumed.done():
            if not stopped.done():
                stopped.set_result(None)
            time.sleep(0.05)
            return []
        return real(consumer, most, wait_s)

    ada = command("ada", "RegisterUser", name="Ada")
    monkeypatch.setattr(kafka, "what_came", standing_still)
    stopped.result(20)
    reader._consumer.pause([TopicPartition(topics_of(own_settings).replies, reader.partition)])
    waiting = client.submit(ada)
    with processor(own_env, tmp_path):
        with CommandClient(own_settings) as other:
            assert other.execute(ada, 60).accepted
        place = topics_of(own_settings).replies, reader.partition
        admin = AdminClient(kafka.admin(own_settings))
        eventually(lambda: kafka.end_offsets(admin, [place], 30)[place] > 0)
        delete_replies(client, own_settings)
        reader._consumer.resume([TopicPartition(*place)])
        resumed.set_result(None)
        assert isinstance(waiting.exception(60), RepliesMissed)
        assert client.execute(ada, 60).version == 1


def test_when_the_reader_ends_by_a_bug_all_who_wait_are_told_and_all_who_come(
    client: CommandClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = command("ada", "RegisterUser", name="Ada")
    future = client.submit(ada)

    def bug(*_: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(kafka, "what_came", bug)
    assert isinstance(future.exception(20), ReaderDied)
    with pytest.raises(ReaderDied, match="a bug"):
        client.submit(ada)


def test_an_end_that_this_release_does_not_know_is_no_refusal() -> None:
    from orderflow.placing import ended
    from schemas.decoding import decoder
    from schemas.saga import SagaEnd

    end = decoder(SagaEnd)(b'{"saga_id":"o","saga":"s","status":"suspended"}')
    assert isinstance(ended("o", end), StillRunning)
    end = decoder(SagaEnd)(b'{"saga_id":"o","saga":"s","status":"failed"}')
    assert isinstance(ended("o", end), NotPlaced)


def test_a_full_buffer_stops_no_event_loop_and_no_time_out(
    own_kafka: EmbeddedKafka, servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    """The broker is suspended, so nothing that is sent leaves the buffer."""
    own = ServersAddress(own_kafka.bootstrap_servers, servers.redis_url)
    settings = Settings.model_validate(environment(own, prefix, tmp_path / "home"))
    topic_admin.apply(settings)

    async def ask() -> tuple[float, float, int]:
        async with AsyncCommandClient(settings) as client:
            client.threaded.reply_reader()
            os.kill(own_kafka.pid, signal.SIGSTOP)
            try:
                for number in range(CROWDED):
                    client.threaded.send(command(f"u-{number}", "RegisterUser", name="A"))
                ticks = 0

                async def tick() -> None:
                    nonlocal ticks
                    while True:
                        ticks += 1
                        await asyncio.sleep(0.05)

                ticking = asyncio.create_task(tick())
                began = time.monotonic()
                with pytest.raises(OutcomeTimeout):
                    await client.execute(command("ada", "RegisterUser", name="A"), timeout=2)
                of_a_task = time.monotonic() - began
                ticking.cancel()
                began = time.monotonic()
                with pytest.raises(OutcomeTimeout):
                    client.threaded.execute(command("ada", "RegisterUser", name="A"), timeout=1)
                return of_a_task, time.monotonic() - began, ticks
            finally:
                os.kill(own_kafka.pid, signal.SIGCONT)

    of_a_task, of_a_thread, ticks = asyncio.run(ask())
    assert of_a_task < 20
    assert of_a_thread < 20
    assert ticks >= 10
