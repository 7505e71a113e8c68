"""The bus over a real Kafka and a real Redis: the suite of every transport, and both side by side."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from pydantic import SecretStr

from commands.user import RegisterUser
from orderflow.bus import (
    BlockingBus,
    BusError,
    CallTimeout,
    GetOrder,
    GetStock,
    GetUser,
    LowStock,
    Retrying,
    TopUsers,
    Unavailable,
    UserOrders,
    blocking,
    in_process_bus,
    kafka_bus,
    standard,
)
from orderflow.shop import PlannedCommand, ShopPlan, generate
from runtime import topic_admin
from runtime.embedded import EmbeddedRedis, ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import Outcome
from tests.support.bus_suite import ROOMY_S, BusSuite, Opened, run
from tests.support.processes import RoleProcess, environment
from tests.support.topics import read_topic
from tests.support.up import Up
from tests.support.views import settings_for

__all__ = ["run"]


@pytest.fixture(scope="module")
def settings(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Of a running pipeline."""
    folder = tmp_path_factory.mktemp("bus")
    prefix = f"t{uuid.uuid4().hex[:12]}"
    with Up(environment(servers, prefix, folder / "home"), folder / "up.log"):
        yield settings_for(servers, prefix, folder / "home")


@pytest.fixture
def opened(settings: Settings) -> Opened:
    return lambda middleware=None: blocking(kafka_bus(settings, middleware))


@pytest.fixture(scope="module")
def bus(settings: Settings) -> Iterator[BlockingBus[Any]]:
    with blocking(kafka_bus(settings)) as bus:
        yield bus


class TestOverKafka(BusSuite):
    """The suite of tests/support/bus_suite.py."""


@dataclass(frozen=True)
class Told:
    """What a bus had to say to each command of a shop, and to questions at its end; times left out."""

    answers: list[tuple[Any, ...]]
    views: list[Any]


def told(bus: BlockingBus[Any], shop: list[PlannedCommand], run: str) -> Told:
    """Sends the shop's commands, one after the other, and asks for everything they touched."""
    answers: list[tuple[Any, ...]] = []
    newest: dict[tuple[str, str], Outcome] = {}
    for planned in shop:
        try:
            command = bus.bus.command(planned.type, planned.json())
            outcome = bus.execute_command(
                command,
                aggregate_id=planned.aggregate_id,
                command_id=planned.command_id,
                expected_version=planned.expected_version,
            )
        except BusError as error:
            answers.append((error.code, str(error)))
            continue
        answers.append((outcome.status, outcome.code, outcome.version, outcome.message))
        newest[outcome.aggregate, outcome.aggregate_id] = outcome
    return Told(answers, asked(bus, newest, run))


def asked(bus: BlockingBus[Any], newest: dict[tuple[str, str], Outcome], run: str) -> list[Any]:
    """Every answer about these aggregates, each as of its newest outcome."""
    found: list[Any] = []
    orders = [outcome for (kind, _), outcome in newest.items() if kind == "order"]
    for (kind, identity), outcome in sorted(newest.items()):
        match kind:
            case "order":
                query: Any = GetOrder(order_id=identity)
            case "user":
                query = GetUser(user_id=identity)
                page = bus.execute_query(UserOrders(user_id=identity), at_least=orders)
                found.append(sorted(order.order_id for order in page.orders))
            case "inventory":
                query = GetStock(sku=identity)
            case _:
                continue
        found.append(without_times(bus.execute_query(query, at_least=outcome)))
    levels = bus.execute_query(LowStock(limit=1_000))
    found.append([without_times(level) for level in levels if level.sku.startswith(run)])
    for query in (TopUsers(currency="EUR", limit=1_000), TopUsers(by="orders", limit=1_000)):
        rows = bus.execute_query(query)
        found.append([row for row in rows if row.user_id.startswith(run)])
    return found


def without_times(answer: Any) -> str:
    """The answer as text; the two pipelines are not asked at the same time."""
    return re.sub(r"_at_ms=\d+", "_at_ms=…", repr(answer))


def test_both_buses_say_the_same_to_a_whole_shop(bus: BlockingBus[Any], run: str) -> None:
    plan = ShopPlan(seed=7, users=4, skus=4, orders=12, bad_share=0.3, namespace=f"{run}-")
    shop = list(generate(plan))
    real = told(bus, shop, run)
    with blocking(in_process_bus()) as in_process:
        in_memory = told(in_process, shop, run)

    assert in_memory.answers == real.answers
    assert in_memory.views == real.views
    codes = {code for _, code, *_ in real.answers if code is not None}
    assert len(codes) >= 5, "the shop has to be refused for many reasons"


def test_what_follows_from_a_command_carries_the_callers_trace(
    bus: BlockingBus[Any], settings: Settings, run: str
) -> None:
    span = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, False, TraceFlags(1))
    with use_span(NonRecordingSpan(span)):
        bus.execute_command(RegisterUser(name="Ada"), aggregate_id=f"ada-{run}")

    history = read_topic(settings, topics_of(settings).history("user"))
    (record,) = (r for r in history if r.key == f"ada-{run}".encode())
    assert record.headers["traceparent"] == (
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )


def test_a_command_without_a_processor_is_asked_for_again_and_takes_effect_once(
    servers: ServersAddress, prefix: str, tmp_path: Path, run: str
) -> None:
    env = environment(servers, prefix, tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    retrying = [Retrying(0.3) if isinstance(one, Retrying) else one for one in standard()]
    with blocking(kafka_bus(settings, retrying)) as bus, ThreadPoolExecutor(1) as pool:

        def send(timeout: float) -> Outcome:
            ada = RegisterUser(name="Ada")
            call = {"aggregate_id": f"ada-{run}", "command_id": f"signup-{run}"}
            return bus.execute_command(ada, timeout=timeout, **call)

        with pytest.raises(CallTimeout, match="it may still be decided"):
            send(1.0)
        under_way = pool.submit(send, ROOMY_S)
        with RoleProcess("processors", env, tmp_path / "processor.log", "commands"):
            assert under_way.result().version == 1
            assert send(ROOMY_S) == under_way.result()

    topics = topics_of(settings)
    assert len(read_topic(settings, topics.commands("user"))) > 2
    assert len(read_topic(settings, topics.history("user"))) == 1


def test_a_redis_that_is_gone_is_unavailable_and_one_that_is_back_answers(
    settings: Settings, own_redis: EmbeddedRedis, run: str
) -> None:
    own = settings.model_copy(update={"redis_url": SecretStr(own_redis.url)})
    with blocking(kafka_bus(own)) as bus, ThreadPoolExecutor(1) as pool:
        query = GetOrder(order_id=f"none-{run}")
        assert bus.execute_query(query) is None
        own_redis.kill()
        with pytest.raises((Unavailable, CallTimeout)) as raised:
            bus.execute_query(query, timeout=1.0)
        assert raised.value.retriable
        under_way = pool.submit(bus.execute_query, query, timeout=ROOMY_S)
        own_redis.start()
        assert under_way.result() is None
