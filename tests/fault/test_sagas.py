"""Orders placed while processes are killed: all end, and every law holds."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from orderflow.placing import OrderClient, Placed, Placement, order_command
from runtime import kafka
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.topic_admin import topics_of
from sagas.create_order import Coordination
from schemas.partitioner import partition_for
from schemas.records import EventRecord, decode_event
from schemas.saga import SagaStatus
from tests.support.commanding import eventually
from tests.support.saga_invariants import ENDINGS, check_orders, ended
from tests.support.sagas import COORDINATIONS, SagaStack, order, saga_stack
from tests.support.topics import read_topic

TOKENS = ("tok_approve", "tok_decline", "tok_slow_400", "tok_approve", "tok_drop", "tok_flaky")
STEPS = ("validateUser", "reserveInventory", "processPayment", "createOrder")
TURNS = ("payments", "gateway", "sagas", "reactor", "commands")
ORDERS = 84
RUNS: list[tuple[str, Coordination]] = [
    ("sagas", "orchestration"),
    ("sagas", "choreography"),
    ("commands", "orchestration"),
    ("gateway", "orchestration"),
]
"""Which role is killed at every event of an order placed in which way."""

BATCH_MS = 200
"""How long a processor gathers before it writes: longer than a test takes to see an event and to kill."""


@pytest.fixture
def stack(servers: ServersAddress, prefix: str, tmp_path: Path) -> Iterator[SagaStack]:
    with saga_stack(servers, prefix, tmp_path, ORDERFLOW_BATCH_SIZE="10") as running:
        yield running


def mixed(number: int) -> dict[str, Any]:
    """Orders in both ways, with every kind of payment and some of several SKUs."""
    wanted = order(TOKENS[number // 2 % len(TOKENS)], A=1, B=1 + number % 3)
    return {"coordination": COORDINATIONS[number % 2], **wanted}


def send(stack: SagaStack, ids: list[str], **one_order: Any) -> None:
    """Starts orders without waiting for any."""
    with CommandClient(stack.settings) as client:
        for order_id in ids:
            client.send(order_command(order_id, **one_order))


def events_of(stack: SagaStack, saga_id: str) -> list[EventRecord]:
    """The history of a saga."""
    records = read_topic(stack.settings, topics_of(stack.settings).history("saga"))
    return [decode_event(r.value or b"") for r in records if r.key == saga_id.encode()]


class Watch:
    """Sees the events of one saga as soon as they are committed."""

    def __init__(self, stack: SagaStack, saga_id: str) -> None:
        self._key = saga_id.encode()
        self._consumer = kafka.new_reader(stack.settings)
        partition = partition_for(self._key, stack.settings.partitions)
        at = TopicPartition(topics_of(stack.settings).history("saga"), partition)
        _, at.offset = kafka.watermarks(self._consumer, at, 10)
        self._consumer.assign([at])
        self.events: list[EventRecord] = []

    def until(self, count: int) -> None:
        """Waits for so many events, or for the end of the saga."""
        deadline = time.monotonic() + 60
        while len(self.events) < count and not self.ended:
            assert time.monotonic() < deadline, f"{len(self.events)} of {count}"
            for message in self._consumer.consume(100, 0.01):
                if message.error() is None and message.key() == self._key:
                    self.events.append(decode_event(message.value() or b""))

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.events) and self.events[-1].type in ENDINGS

    def close(self) -> None:
        """Stops looking."""
        self._consumer.close()


def kill_at_every_event(stack: SagaStack, role: str, coordination: Coordination) -> list[str]:
    """One order after the other, each refused by its last step; kills the role when one event more
    than in the round before can be read, until an order ends before that. Returns where it killed.
    """
    wanted = {"coordination": coordination, **order(A=1, B=2)}
    killed_at: list[str] = []
    ids: list[str] = []
    count = 1
    while True:
        order_id = f"o-{len(ids)}"
        ids.append(order_id)
        stack.take(order_id)
        watch = Watch(stack, order_id)
        send(stack, [order_id], **wanted)
        watch.until(count)
        watch.close()
        if watch.ended:
            break
        kill(stack, role)
        killed_at.append(where(watch.events[-1]))
        count = len(watch.events) + 1
    eventually(lambda: ended(stack.settings, ids), timeout=60, every=0.5)
    sagas = check_orders(stack.settings, stack.gateway, ids, by_hand=ids)
    for saga in sagas.values():
        assert (saga.status, saga.code) == (SagaStatus.COMPENSATED, "order_already_exists")
        assert saga.undone == ("processPayment", "reserveInventory")
    return killed_at


def where(event: EventRecord) -> str:
    """An event's type and, if it is about a step, which."""
    step = msgspec.json.decode(event.data).get("step")
    return f"{event.type} {step}" if step else event.type


def test_a_processor_killed_at_every_event_of_an_order_leaves_nothing_undone(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with ExitStack() as started, ThreadPoolExecutor(len(RUNS)) as threads:
        # At the same time, because most of it is waiting for the sessions of the killed.
        runs: list[Future[list[str]]] = []
        for number, (role, coordination) in enumerate(RUNS):
            directory = tmp_path / str(number)
            directory.mkdir()
            more = {"ORDERFLOW_BATCH_MS": str(BATCH_MS)}
            stack = started.enter_context(
                saga_stack(servers, f"{prefix}-{number}", directory, **more)
            )
            stack.stock(A=100, B=100)
            runs.append(threads.submit(kill_at_every_event, stack, role, coordination))
        for run in runs:
            killed_at = {*run.result()}
            assert {f"SagaStepStarted {step}" for step in STEPS} <= killed_at
            assert {f"SagaStepCompensationStarted {step}" for step in STEPS[1:3]} <= killed_at


def kill(stack: SagaStack, role: str) -> None:
    """SIGKILL, and started anew."""
    if role == "gateway":
        stack.gateway.kill()
        time.sleep(0.3)
        stack.gateway.start_anew()
    else:
        stack.restart(role)


def test_whatever_is_killed_while_many_place_orders_each_is_told_what_the_log_says(
    stack: SagaStack,
) -> None:
    stack.stock(A=30, B=70)
    chance = random.Random(5)
    ids = [f"o-{number}" for number in range(ORDERS)]
    with OrderClient(stack.settings) as orders, ThreadPoolExecutor(16) as threads:

        def place(number: int) -> Placement:
            return orders.place_order(ids[number], timeout=120, **mixed(number))

        placing = [threads.submit(place, number) for number in range(ORDERS)]
        for turn, role in enumerate(TURNS):
            enough = 1 + turn * ORDERS // 6
            eventually(lambda: sum(p.done() for p in placing) >= enough, 60)  # noqa: B023
            time.sleep(chance.uniform(0, 0.3))
            kill(stack, role)
        answers = [each.result() for each in placing]
    sagas = check_orders(stack.settings, stack.gateway, ids)
    assert {SagaStatus.COMPLETED, SagaStatus.COMPENSATED} <= {s.status for s in sagas.values()}
    for order_id, answer in zip(ids, answers, strict=True):
        told = SagaStatus.COMPLETED if isinstance(answer, Placed) else getattr(answer, "status", "")
        assert told == sagas[order_id].status, answer


def test_nine_tenths_on_one_sku_never_oversell_and_first_come_is_first_served(
    stack: SagaStack,
) -> None:
    stack.stock(HOT=50, A=500)
    for role in ("sagas", "commands"):
        stack.start_another(role)
    ids = [f"o-{number:03d}" for number in range(120)]
    hot = [one for number, one in enumerate(ids) if number % 10]
    send(stack, hot, **order(HOT=1))
    send(stack, [one for one in ids if one not in hot], **order(A=1))
    eventually(lambda: ended(stack.settings, ids), timeout=120, every=0.5)
    sagas = check_orders(stack.settings, stack.gateway, ids)
    served = {one for one in hot if sagas[one].status is SagaStatus.COMPLETED}
    commands = read_topic(stack.settings, topics_of(stack.settings).commands("inventory"))
    asked = [r.headers.get("answer-to", b"").decode() for r in commands if r.key == b"HOT"]
    came = dict.fromkeys(token.partition("/")[0] for token in asked if token)
    assert len(came) == len(hot)
    assert served == set(list(came)[:50])


def test_an_appointment_survives_its_processor_and_takes_effect_once(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    """Meanwhile nobody waits for the saga that is stuck, on its partition or on another."""
    stuck = {coordination: f"stuck-{coordination}" for coordination in COORDINATIONS}
    others = [f"other-{number}" for number in range(8)]
    with saga_stack(servers, prefix, tmp_path, ORDERFLOW_SAGA_TIMEOUT_MS="3000") as stack:
        stack.stock(A=20)
        for coordination, order_id in stuck.items():
            send(stack, [order_id], coordination=coordination, **order("tok_down", A=1))
        send(stack, others, **order(A=1))
        eventually(lambda: ended(stack.settings, others), timeout=30)
        assert not ended(stack.settings, [stuck["orchestration"]])
        stack.restart("sagas")
        stack.start_another("sagas")
        eventually(lambda: ended(stack.settings, stuck.values()), timeout=120, every=0.5)
        sagas = check_orders(stack.settings, stack.gateway, [*stuck.values(), *others])
        for coordination, saga_id in stuck.items():
            assert sagas[saga_id].status is SagaStatus.COMPENSATED
            assert sagas[saga_id].code == "timed_out"
            suffix = ":payment" if coordination == "choreography" else ""
            # Three attempts: two appointments to ask again, each once, and one to give up.
            assert attempts(stack, saga_id + suffix) == [2, 3]
        assert {sagas[one].status for one in others} == {SagaStatus.COMPLETED}


def test_a_reactor_whose_transactions_are_fenced_misses_no_event(stack: SagaStack) -> None:
    """An order of which one was missed would time out."""
    stack.stock(A=100)
    reactor = stack.roles["reactor"]
    eventually(lambda: "reactor started as" in reactor.text())
    name = re.findall(r"reactor started as (\S+)", reactor.text())[0]
    config = kafka.transactional_producer(stack.settings, f"{stack.settings.topic_prefix}.{name}")
    ids = [f"o-{number}" for number in range(60)]
    for round_ in range(6):
        send(stack, ids[round_::6], coordination="choreography", **order(A=1))
        time.sleep(0.1 * round_)
        with suppress(KafkaException):  # the reactor may fence it in turn
            Producer(config).init_transactions(30)
    eventually(lambda: ended(stack.settings, ids), timeout=60, every=0.5)
    sagas = check_orders(stack.settings, stack.gateway, ids)
    assert {sagas[one].status for one in ids} == {SagaStatus.COMPLETED}
    assert "reacting again" in reactor.text()
    until_all_is_reacted_to(stack)


def until_all_is_reacted_to(stack: SagaStack) -> None:
    """Until the reactor has committed every event; fails the test if it does not."""
    history = topics_of(stack.settings).history("saga")
    last = {r.partition: r.offset for r in read_topic(stack.settings, history)}
    group = f"{stack.settings.topic_prefix}.reactor"
    consumer = Consumer(kafka.repeating_consumer(stack.settings, group))

    def behind() -> int:
        places = [TopicPartition(history, partition) for partition in last]
        committed = consumer.committed(places, 10)
        return sum(max(0, last[at.partition] + 1 - at.offset) for at in committed)

    with closing(consumer):
        eventually(lambda: behind() == 0, timeout=10)


def attempts(stack: SagaStack, saga_id: str) -> list[int]:
    """Numbers of the attempts at the payment, from the second on."""
    found = [e for e in events_of(stack, saga_id) if e.type == "SagaStepRetried"]
    retried = [msgspec.json.decode(event.data) for event in found]
    return [r["attempt"] for r in retried if r["step"] == "processPayment" and not r.get("undo")]
