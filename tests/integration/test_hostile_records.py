"""One record from any client stops no role of the write side, also when it is read again after a SIGKILL."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from orderflow.placing import order_command
from runtime import kafka, topic_admin
from runtime.client import CommandClient, OutgoingCommand
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers, limits
from schemas.records import Outcome, decode_outcome
from schemas.rejections import Code
from tests.support import events
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess, environment
from tests.support.topics import Record, read_topic

WITHIN_S: Final = 120.0
ROLES: Final = {
    "commands": ("processors",),
    "sagas": ("processors", "sagas"),
    "reactor": ("processors", "reactor"),
    "payments": ("payments",),
}


@dataclass
class Stack:
    """The roles of the write side, and a client who may write anything."""

    settings: Settings
    env: dict[str, str]
    folder: Path
    client: CommandClient
    roles: dict[str, RoleProcess]

    def start(self) -> None:
        """Starts every role."""
        for name, (module, *arguments) in ROLES.items():
            log = self.folder / f"{name}.log"
            self.roles[name] = RoleProcess(module, self.env, log, *arguments)

    def kill_and_restart(self) -> None:
        """SIGKILL to every role; they read again what is not committed, and restore the rest."""
        for role in self.roles.values():
            role.__exit__(None, None, None)
        self.start()

    def put(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *marks: tuple[str, bytes],
    ) -> None:
        """One record, as a stranger would write it."""
        refused = []
        hostile = Producer(
            kafka.connection(self.settings)
            | {"partitioner": "murmur2_random", "message.max.bytes": 100_000_000}
            | {"compression.type": "lz4"}
        )
        name = f"{self.settings.topic_prefix}.{topic}"
        hostile.produce(
            name, value, key, headers=[*marks], on_delivery=lambda error, _: refused.append(error)
        )
        assert hostile.flush(60) == 0
        assert refused == [None]

    def others_go_on(self) -> None:
        """Commands of users and of sagas on all partitions are answered, by the same processes."""
        for number in range(6):
            name = f"u-{uuid.uuid4().hex[:8]}-{number}"
            done = self.client.execute(command(name, "RegisterUser", name="P"), timeout=WITHIN_S)
            assert done.accepted
        for _ in range(4):
            order_id = f"o-{uuid.uuid4().hex[:8]}"
            placed = order_command(
                order_id,
                user_id="nobody",
                lines=[{"sku": "A", "quantity": 1, "unit_price": 5}],
                currency="EUR",
                payment_token="tok_approve",
            )
            assert self.client.execute(placed, timeout=WITHIN_S).accepted
        for name, role in self.roles.items():
            assert role.running, f"{name} has ended: {role.text()[-3_000:]}"

    def outcome(self, command_id: str, aggregate: str = "user") -> Outcome:
        """The outcome of a command, as soon as it stands."""
        found: list[Outcome] = []

        def stands() -> bool:
            records = read_topic(self.settings, topics_of(self.settings).outcomes(aggregate))
            mine = [r for r in records if (r.key or b"").endswith(b"/" + command_id.encode())]
            found[:] = [decode_outcome(record.value or b"") for record in mine]
            return bool(found)

        eventually(stands, WITHIN_S)
        (one,) = found
        return one

    def letter(self, source: str, key: bytes | None = None) -> Record:
        """The newest dead letter of a record of this topic, as soon as it stands."""
        topic = f"{self.settings.topic_prefix}.{source}".encode()
        found: list[Record] = []

        def stands() -> bool:
            letters = read_topic(self.settings, topics_of(self.settings).dead_letters)
            found[:] = [
                each
                for each in letters
                if each.headers[headers.ERROR_TOPIC] == topic and key in (None, each.key)
            ]
            return bool(found)

        eventually(stands, WITHIN_S)
        return found[-1]


@pytest.fixture(scope="module")
def stack(servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("hostile")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    env["ORDERFLOW_GATEWAY_URL"] = "http://127.0.0.1:9"
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with CommandClient(settings) as client:
        made = Stack(settings, env, folder, client, {})
        made.start()
        try:
            made.others_go_on()
            yield made
        finally:
            for role in made.roles.values():
                role.__exit__(None, None, None)


def register(command_id: str) -> bytes:
    return b'{"type":"RegisterUser","command_id":"%b","data":{"name":"A"}}' % command_id.encode()


DEEP: Final = b"[" * 100_000 + b"]" * 100_000
COMMANDS: Final = "user.commands"


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"RegisterUser","command_id":"n1","data":' + DEEP + b"}",
        b'{"x":' + DEEP + b',"type":"RegisterUser","command_id":"n2"}',
    ],
    ids=["in the data", "in an unknown field"],
)
def test_nested_json(stack: Stack, value: bytes) -> None:
    key = b"deep-%d" % len(value)
    stack.put(COMMANDS, key, value)
    letter = stack.letter(COMMANDS, key)
    assert (letter.value, letter.headers[headers.ERROR_CODE]) == (value, b"malformed")
    stack.others_go_on()


@pytest.mark.parametrize("size", [8_300_000, 9_000_000, 50_000_000])
def test_a_value_that_fits_no_letter_is_cut_and_the_letter_says_so(stack: Stack, size: int) -> None:
    key = b"large-%d" % size
    stack.put(COMMANDS, key, b"x" * size)
    letter = stack.letter(COMMANDS, key)
    if size > limits.MAX_RECORD_BYTES:
        assert letter.headers[headers.ERROR_CUT] == b"value"
        assert letter.headers[headers.ERROR_VALUE_BYTES] == str(size).encode()
    assert (b"x" * size).startswith(letter.value or b"")
    stack.others_go_on()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (headers.CORRELATION_ID, b"y" * 9_000_000),
        (headers.TRACEPARENT, b"y" * 9_000_000),
        (headers.ANSWER_TO, b"o-1/" + b"\x01" * 2_000_000),
        ("unknown", b"y" * 9_000_000),
    ],
)
def test_a_huge_header_is_a_refused_command(stack: Stack, name: str, value: bytes) -> None:
    command_id = f"huge-{name}"
    stack.put(COMMANDS, b"huge", register(command_id), (name, value))
    outcome = stack.outcome(command_id)
    assert (outcome.code, outcome.field) == (Code.TOO_LARGE, "headers")
    stack.others_go_on()


def test_thousands_of_headers_are_a_refused_command(stack: Stack) -> None:
    marks = [(f"h{number}", b"x") for number in range(20_000)]
    stack.put(COMMANDS, b"many", register("many"), *marks)
    assert stack.outcome("many").code is Code.TOO_LARGE
    stack.others_go_on()


def test_a_huge_key_and_a_huge_type(stack: Stack) -> None:
    stack.put(COMMANDS, b"k" * 9_000_000, register("key"))
    letter = stack.letter(COMMANDS, b"k" * limits.KEPT_KEY_BYTES)
    assert letter.headers[headers.ERROR_CUT] == b"key"
    value = b'{"type":"%b","command_id":"type"}' % (b"x" * 9_000_000)
    stack.put(COMMANDS, b"typed", value)
    outcome = stack.outcome("type")
    assert outcome.code is Code.TOO_LARGE
    assert len(outcome.type) <= limits.MAX_TYPE
    stack.others_go_on()


def test_a_reply_partition_of_5000_digits_is_none(stack: Stack) -> None:
    stack.put(COMMANDS, b"digits", register("r1"), (headers.REPLY_PARTITION, b"9" * 5_000))
    assert stack.outcome("r1").accepted
    stack.others_go_on()


def test_a_header_of_the_sender_is_none_of_the_letter(stack: Stack) -> None:
    stack.put(COMMANDS, b"spoof", b"no json", (headers.ERROR_HOLDS_KEY, b"true"))
    assert headers.ERROR_HOLDS_KEY not in stack.letter(COMMANDS, b"spoof").headers
    stack.others_go_on()


def test_a_header_name_that_is_not_utf8_is_a_refused_command(stack: Stack) -> None:
    kcat = shutil.which("kcat")
    if kcat is None:
        pytest.skip("kcat is not installed, and no Python client can write such a name")
    topic = f"{stack.settings.topic_prefix}.{COMMANDS}"
    for value in (
        *(register(f"utf8-{number}") for number in range(5)),
        register("utf8"),
        b"no json",
    ):
        subprocess.run(
            [
                *(kcat, "-P", "-b", str(stack.settings.kafka_bootstrap_servers), "-t", topic),
                *("-k", "named", "-X", "partitioner=murmur2_random", "-H", b"\xff=1"),
            ],
            input=value,
            check=True,
        )
    outcome = stack.outcome("utf8")
    assert (outcome.code, outcome.field) == (Code.MALFORMED, "headers")
    assert stack.letter(COMMANDS, b"named").headers[headers.ERROR_CUT] == b"headers"
    stack.others_go_on()


def test_a_start_with_an_answer_to_header_is_carried_out_and_answered(stack: Stack) -> None:
    started = order_command(
        "o-answer",
        user_id="nobody",
        lines=[{"sku": "A", "quantity": 1, "unit_price": 5}],
        currency="EUR",
        payment_token="tok_approve",
    )
    stack.put(
        "saga.commands", b"o-answer", started.value(), (headers.ANSWER_TO, b"o-other/step/0A")
    )
    assert stack.outcome(started.command_id, "saga").accepted
    stack.others_go_on()


def test_garbage_on_the_histories_that_roles_follow(stack: Stack) -> None:
    for topic in ("saga.history", "payment.history"):
        for value in (b"garbage", b'{"version":0}', b"x" * 8_000_000, None):
            stack.put(topic, b"evil", value, (headers.CORRELATION_ID, b"\xff" * 300_000))
        started = {"saga": "order.create", "input": {"a": "x" * 5_000_000}, "correlation_id": "x"}
        event = {"type": "SagaStarted", "id": "a", "version": 1, "occurred_at_ms": 1}
        stack.put(topic, b"evil", json.dumps({**event, "data": started}).encode())
        assert stack.letter(topic, b"evil")
    stack.others_go_on()


def test_garbage_on_the_topics_that_are_restored_stops_no_restart(stack: Stack) -> None:
    saga = events.saga("o-newer", 1, wakes_at_ms=5).value or b""
    newer = saga.replace(b'"state":', b'"state_version":99,"state":')
    records = [
        (b"evil", b"garbage"),
        (
            b"evil-deep",
            b'{"type":"X","id":"a","version":1,"occurred_at_ms":1,"state":' + DEEP + b"}",
        ),
        (b"no-state", b'{"type":"X","id":"a","version":1,"occurred_at_ms":1}'),
        (b"o-newer", newer),
        (b"\xff", saga),
        (b"\x00checkpoint", b"garbage"),
        (b"\x00mark/o-1", b"garbage"),
        (b"evil/00000000000000000003", b"garbage"),
        (None, b"garbage"),
        (b"gone", None),
    ]
    for key, value in records:
        for name in ("outcomes",) if key is None else ("events", "outcomes", "parked"):
            stack.put(f"saga.{name}", key, value)
            stack.put(f"user.{name}", key, value)
    stack.kill_and_restart()
    stack.others_go_on()
    wake = b'{"type":"WakeSaga","command_id":"w","data":{"timer":0}}'
    stack.put("saga.commands", b"o-newer", wake)
    letter = stack.letter("saga.commands", b"o-newer")
    assert letter.headers[headers.ERROR_CODE] == b"unsupported_schema_version"
    assert letter.headers[headers.ERROR_HOLDS_KEY] == b"true"
    stack.others_go_on()


def test_a_record_that_the_broker_refuses_is_put_aside_and_the_batch_goes_on(stack: Stack) -> None:
    """The limit of the events topic is lowered, so that some events are refused that others are not."""
    topic = topics_of(stack.settings).events("user")
    _set(stack.settings, topic, "700")
    try:
        # The broker takes the new limit over some time after it has answered.
        eventually(lambda: not _is_taken(stack), WITHIN_S)
        small = [command(f"s-{uuid.uuid4().hex[:8]}", "RegisterUser", name="P") for _ in range(200)]
        large = [_large(f"l-{number}") for number in (5, 75, 145)]
        for number, sent in enumerate(small):
            stack.client.send(sent)
            if number % 70 == 5:
                stack.client.send(large[number // 70])
        stack.client.flush()
        assert not any(_is_accepted(stack, sent) for sent in large)
        for sent in small:
            assert stack.client.execute(sent, timeout=WITHIN_S).accepted
        letter = stack.letter(COMMANDS, b"l-5")
        assert letter.headers[headers.ERROR_CODE] == b"internal_error"
    finally:
        _set(stack.settings, topic, str(limits.MAX_RECORD_BYTES))
    stack.others_go_on()


def _large(user_id: str) -> OutgoingCommand:
    """A command whose event has over 900 bytes, compressed or not."""
    name = "".join(uuid.uuid4().hex for _ in range(6))
    return command(user_id, "RegisterUser", name=name, email="a@b.c")


def _is_taken(stack: Stack) -> bool:
    """Send a large command; return whether it is accepted."""
    probe = _large(f"p-{uuid.uuid4().hex[:8]}")
    stack.client.send(probe)
    return _is_accepted(stack, probe)


def _is_accepted(stack: Stack, sent: OutgoingCommand) -> bool:
    """Wait for a command's outcome, or for its dead letter: then it is not."""
    topics, key = topics_of(stack.settings), sent.aggregate_id.encode()

    def is_on(topic: str) -> bool:
        return any((r.key or b"").startswith(key) for r in read_topic(stack.settings, topic))

    said: list[bool] = []

    def is_known() -> bool:
        said[:] = [is_on(topics.outcomes("user")), is_on(topics.dead_letters)]
        return any(said)

    eventually(is_known, WITHIN_S, 0.2)
    return said[0]


def test_everything_holds_after_a_kill(stack: Stack) -> None:
    stack.kill_and_restart()
    stack.others_go_on()


def _set(settings: Settings, topic: str, most: str) -> None:
    entry = ConfigEntry("max.message.bytes", most, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient(kafka.admin(settings))  # its futures fail when it is collected before them
    for future in client.incremental_alter_configs([resource]).values():
        future.result()
