"""Parked commands on a real broker, with a handler that has a bug and processors that are killed.

Each test ends the same way: the bug is mended, an operator settles, all invariants of the log are checked.
That an aggregate's commands were judged in their order of arrival is the oracle's to say: it judges them in
the order of their offsets and wants the same outcomes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer

from orderflow.dead_letters import Desk, Letter, Order
from runtime import kafka, topic_admin
from runtime.client import CommandClient, CommandParked, OutcomeTimeout
from runtime.embedded import ServersAddress
from runtime.records import IncomingRecord
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import Outcome, decode_outcome
from schemas.rejections import Code
from tests.support.commanding import command, eventually, parking_order
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.topics import read_topic

USERS = tuple(f"u{number}" for number in range(6))
RETRY = Order(action="retry", by="ann", note="mended")


class Shop:
    """Processors with a bug in one handler, and a client."""

    def __init__(self, env: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.bug = directory / "bug"
        self.bug.touch()
        self.env = {**env, "BUG": str(self.bug)}
        self.settings = Settings.model_validate(env)
        self.desk = Desk(self.settings)
        self.client = stack.enter_context(CommandClient(self.settings))
        self._directory, self._stack = directory, stack

    def start(self, log: str = "processor.log", kind: str = "buggy_processor") -> RoleProcess:
        process = RoleProcess(f"tests.support.{kind}", self.env, self._directory / log)
        return self._stack.enter_context(process)

    def register(self, *users: str) -> None:
        for user in users:
            self.client.execute(command(user, "RegisterUser", name="Ada"), READY_WITHIN_S)

    def poison(self, user: str, command_id: str = "poison") -> None:
        """What its handler has a bug for, and two commands behind it."""
        self.client.send(command(user, "DeactivateUser", command_id=command_id, reason="poison"))
        for number in (1, 2):
            behind = f"{command_id}-behind-{number}"
            self.client.send(command(user, "RegisterUser", command_id=behind, name="Ada"))
        self.client.flush()

    def open(self) -> list[Letter]:
        return [letter for letter in self.desk.letters() if letter.open]

    def outcomes(self) -> dict[str, Outcome]:
        records = read_topic(self.settings, topics_of(self.settings).outcomes("user"))
        return {o.command_id: o for o in (decode_outcome(r.value or b"") for r in records)}

    def drained(self, *command_ids: str) -> dict[str, Outcome]:
        """Once each of these has its outcome: every law of the log holds."""
        eventually(lambda: set(command_ids) <= self.outcomes().keys(), 90, 0.3)
        eventually(lambda: not any(one.waiting for one in self.desk.letters()), 30, 0.3)
        check_log(self.settings)
        return self.outcomes()


@pytest.fixture
def shop(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    env = environment(servers, prefix, tmp_path / "home")
    topic_admin.apply(Settings.model_validate(env))
    with ExitStack() as stack:
        yield Shop(env, tmp_path, stack)


ALL = ("poison", "poison-behind-1", "poison-behind-2")


def one_open(shop: Shop, waiting: int = 2) -> Letter:
    def found() -> bool:
        letters = shop.open()
        return len(letters) == 1 and letters[0].waiting == waiting

    eventually(found, 60, 0.2)
    return shop.open()[0]


def test_a_poisoned_key_waits_others_go_on_and_a_retry_takes_the_old_place(shop: Shop) -> None:
    processor = shop.start()
    shop.register(*USERS)
    poison = command("u0", "DeactivateUser", command_id="poison", reason="poison")
    with pytest.raises(CommandParked, match="dead-letters list") as told:
        shop.client.execute(poison)
    assert isinstance(told.value, OutcomeTimeout)
    shop.poison("u0")  # the same again, and what follows
    for user in USERS[1:]:
        assert shop.client.execute(command(user, "DeactivateUser", reason="left")).accepted
    letter = one_open(shop, waiting=3)
    assert (letter.key, letter.code, letter.aggregate) == ("u0", "internal_error", "user")
    assert b'"reason":' in (shop.desk.record(letter).value or b"")
    again = shop.desk.settle(letter.id, RETRY)
    assert (again.settled, again.code) == (False, "internal_error")
    assert "poison" not in shop.outcomes()
    shop.bug.unlink()
    assert shop.desk.settle(letter.id, RETRY).result == "accepted"
    found = shop.drained(*ALL)
    assert [found[one].version for one in ALL] == [2, 2, 2]
    assert found["poison-behind-1"].code is Code.USER_ALREADY_REGISTERED
    assert not shop.open()
    assert [a.settled for a in shop.desk.letter(letter.id).actions] == [False, True]
    assert processor.running


def test_who_is_killed_while_something_is_parked_finds_it_again(shop: Shop) -> None:
    processor = shop.start("first.log")
    shop.register("u0", "u1")
    shop.poison("u0")
    letter = one_open(shop)
    processor.kill()
    shop.start("second.log")
    shop.register("u2")
    shop.client.send(command("u0", "RegisterUser", command_id="late", name="Ada"))
    shop.client.flush()
    letter = one_open(shop, waiting=3)
    assert not {*ALL, "late"} & shop.outcomes().keys()
    assert shop.desk.settle(letter.id, Order(action="discard", by="ann")).settled
    found = shop.drained(*ALL, "late")
    assert found["poison"].code is Code.DISCARDED
    assert found["late"].version == 1


def test_without_its_local_state_a_processor_knows_what_is_parked_too(
    shop: Shop, tmp_path: Path
) -> None:
    processor = shop.start("first.log")
    shop.register("u0")
    shop.poison("u0")
    one_open(shop)
    processor.kill()
    shop.env["ORDERFLOW_HOME"] = str(tmp_path / "another home")
    shop.start("second.log")
    shop.register("u1")
    letter = one_open(shop)
    shop.bug.unlink()
    shop.desk.settle(letter.id, RETRY)
    assert shop.drained(*ALL)["poison"].accepted


def test_the_new_owner_of_a_partition_knows_what_is_parked(shop: Shop) -> None:
    first = shop.start("first.log")
    shop.register(*USERS)
    for user in USERS:
        shop.poison(user, f"poison-{user}")
    eventually(lambda: len(shop.open()) == len(USERS), 60, 0.3)
    second = shop.start("second.log")
    eventually(lambda: "ready" in second.text(), 60)
    for user in USERS:
        shop.client.send(command(user, "RegisterUser", command_id=f"late-{user}", name="Ada"))
    shop.client.flush()
    eventually(lambda: sum(one.waiting for one in shop.open()) == 3 * len(USERS), 60, 0.3)
    shop.bug.unlink()
    for number, letter in enumerate(shop.open()):
        if number == len(USERS) // 2:
            first.kill()  # the second takes over the rest
        shop.desk.settle(letter.id, RETRY)
    ids = [f"{what}-{user}" for user in USERS for what in ("poison", "late")]
    found = shop.drained(*ids)
    assert all(found[f"poison-{user}"].accepted for user in USERS)
    assert second.running


def test_killed_between_a_retry_and_its_commit_all_is_done_once(shop: Shop) -> None:
    chance = random.Random(5)
    processor = shop.start("first.log")
    shop.register(*USERS)
    for user in USERS:
        shop.poison(user, f"poison-{user}")
    eventually(lambda: sum(one.waiting for one in shop.open()) == 2 * len(USERS), 60, 0.3)
    letters = shop.open()
    shop.bug.unlink()
    for number, letter in enumerate(letters):
        order = parking_order("user", letter.key or "", "RetryParked", letter.offset)
        shop.client.send(order)
        shop.client.send(order)  # an order that comes twice is carried out once
        shop.client.flush()
        time.sleep(chance.uniform(0, 0.05))
        processor.kill()
        processor = shop.start(f"after-{number}.log")
    ids = [f"poison-{user}{behind}" for user in USERS for behind in ("", "-behind-1", "-behind-2")]
    found = shop.drained(*ids)
    assert all(found[f"poison-{user}"].accepted for user in USERS)
    audit = [letter.actions for letter in shop.desk.letters()]
    assert [len(actions) for actions in audit] == [1] * len(USERS)


@pytest.mark.parametrize("at", ["before", "after"])
def test_who_is_suspended_with_a_batch_of_parked_commands_does_not_commit_it_after_the_takeover(
    shop: Shop, tmp_path: Path, at: str
) -> None:
    """Such a batch has read nothing, so no offset of its own says whose partition it is."""
    suspend = tmp_path / "suspend"
    shop.env |= {"SUSPEND": str(suspend), "SUSPEND_AT": at}
    zombie = shop.start("zombie.log", "suspended_processor")
    shop.register("u0")
    shop.poison("u0")
    # Changes the state, so that a second decision would be an older state behind a newer one.
    shop.client.send(command("u0", "DeactivateUser", command_id="left", reason="left"))
    shop.client.flush()
    letter = one_open(shop, waiting=3)
    suspend.touch()
    shop.desk.settle(letter.id, Order(action="discard", by="ann"))
    eventually(lambda: not suspend.exists(), 60)
    heir = shop.start("heir.log", "suspended_processor")
    eventually(lambda: "left" in shop.outcomes(), 90, 0.3)
    newer = command("u0", "ForgetUser", command_id="newer", by="ann", reason="asked")
    assert shop.client.execute(newer, READY_WITHIN_S).version == 3
    zombie.resume()
    eventually(lambda: " lost " in zombie.text(), 60)
    assert shop.drained(*ALL, "left", "newer")["newer"].version == 3
    assert heir.running


def test_a_record_that_names_nobody_holds_nothing_and_can_be_edited_or_discarded(
    shop: Shop, raw: Callable[[str, bytes | None, bytes], None]
) -> None:
    shop.start()
    shop.register("u0")
    topic = topics_of(shop.settings).commands("user")
    raw(topic, b"u0", b"no json")
    raw(topic, None, b'{"type":"RegisterUser","command_id":"n1","data":{"name":"Eve"}}')
    eventually(lambda: len(shop.open()) == 2, 60, 0.2)
    first, second = sorted(shop.open(), key=lambda letter: letter.code)
    assert not any(letter.holds_key for letter in (first, second))
    kept: IncomingRecord = shop.desk.record(second)
    assert kept.value == b"no json"
    edited = Order(action="edit", by="ann", record=shop.desk.record(first).value, key="eve")
    assert shop.desk.settle(first.id, edited).result == "sent again"
    assert shop.desk.settle(second.id, Order(action="discard", by="ann")).result == "discarded"
    assert shop.drained("n1")["n1"].aggregate_id == "eve"
    assert not shop.open()


@pytest.fixture
def raw(shop: Shop) -> Callable[[str, bytes | None, bytes], None]:
    """Sends bytes as any producer could."""
    producer = Producer(kafka.producer(shop.settings))

    def send(topic: str, key: bytes | None, value: bytes) -> None:
        producer.produce(topic, value, key)
        producer.flush(30)

    return send
