"""The bus in one process: the suite of every transport, and what only it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from commands import AGGREGATES
from commands.aggregate import Command
from commands.inventory import ReceiveStock
from commands.user import RegisterUser
from orderflow.bus import (
    BlockingBus,
    CallParked,
    CallTimeout,
    GetOrder,
    GetSaga,
    GetUser,
    InProcessBus,
    Middleware,
    NoHandler,
    Observing,
    Retrying,
    Tracing,
    blocking,
    in_process_bus,
    standard,
)
from orderflow.bus.pipeline import READS
from orderflow.bus.queries import QUERIES
from orderflow.memory_pipeline import TOPICS
from orderflow.placing import NotPlaced, StillRunning
from readmodels import OrderPage
from sagas.messages import StartSaga
from schemas.saga import SagaStatus
from tests.support.bus_suite import BusSuite, Counting, Losing, Opened, item, run, user

__all__ = ["run"]

NOON_MS = 1_700_000_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ORDER: dict[str, Any] = {
    "user_id": "ada",
    "currency": "GBP",
    "lines": [{"sku": "A", "quantity": 3, "unit_price": 100}],
}


@pytest.fixture
def opened() -> Opened:
    return lambda middleware=None: blocking(in_process_bus(middleware))


@pytest.fixture
def bus(opened: Opened) -> Iterator[BlockingBus[Any]]:
    with opened() as bus:
        yield bus


class TestInProcess(BusSuite):
    """The suite of tests/support/bus_suite.py."""


# The table.


def test_every_command_of_every_aggregate_has_a_handler(bus: BlockingBus[Any]) -> None:
    models: list[type[Command]] = [StartSaga]
    models += [model for one in AGGREGATES for model in one.commands]
    for model in models:
        with pytest.raises(Exception, match="is invalid") as raised:
            bus.bus.command(model.__name__, {"no": "such field"})
        assert not isinstance(raised.value, NoHandler)


def test_every_query_is_answered_and_says_what_it_reads(bus: BlockingBus[Any]) -> None:
    fields = {"order_id": "x", "user_id": "x", "sku": "x", "saga_id": "x"}
    assert set(READS) == set(QUERIES)
    for query in QUERIES:
        data = {name: fields[name] for name in query.model_fields if name in fields}
        answer = bus.execute_query(bus.bus.query(query.__name__, data))
        assert answer in (None, 0, (), OrderPage(()))


# Time.


def stopped_clock() -> int:
    return NOON_MS


@pytest.fixture
def stopped() -> Iterator[BlockingBus[InProcessBus]]:
    """A bus where time only passes when it is told to, with a user, and ten pieces of an item."""
    with blocking(in_process_bus(clock=stopped_clock)) as bus:
        user(bus, "ada")
        item(bus, "A", 10)
        yield bus


def test_time_stands_where_the_clock_says(stopped: BlockingBus[InProcessBus]) -> None:
    found = stopped.execute_query(GetUser(user_id="ada"))
    assert found is not None
    assert found.profile is not None
    assert found.profile.registered_at_ms == NOON_MS


def test_a_saga_goes_on_when_its_appointment_is_due(stopped: BlockingBus[InProcessBus]) -> None:
    order = ORDER | {"payment_token": "tok_down"}
    assert isinstance(stopped.place_order("o-1", timeout=0.2, **order), StillRunning)
    assert len(stopped.bus._client._waiters) == 0, "who has given up is remembered for ever"
    saga = stopped.execute_query(GetSaga(saga_id="o-1"))
    assert saga is not None
    assert saga.status == SagaStatus.RUNNING

    for _ in range(50):
        stopped.bus.advance(600_000)

    placement = stopped.place_order("o-1", timeout=5.0, **order)
    assert isinstance(placement, NotPlaced)
    assert (placement.status, placement.code) == ("compensated", "timed_out")
    assert stopped.execute_query(GetOrder(order_id="o-1")) is None


def test_the_pipeline_can_be_looked_into(stopped: BlockingBus[InProcessBus]) -> None:
    pipeline = stopped.bus.pipeline
    assert pipeline.history("inventory", "A") == ["ItemRegistered", "StockReceived"]
    assert [record.topic for record in pipeline.sent] == [
        TOPICS.commands("user"), TOPICS.commands("inventory"),
    ]  # fmt: skip


def test_the_same_commands_at_the_same_time_give_the_same_bytes() -> None:
    def log() -> list[Any]:
        with blocking(in_process_bus(clock=stopped_clock)) as bus:
            user(bus, "ada", command_id="c-1")
            bus.place_order("o-1", payment_token="tok_decline", **ORDER)
            return [(r.topic, r.key, r.value, r.headers) for r in bus.bus.pipeline.log]

    assert log() == log()


# What is told of a call.


def test_the_order_of_the_standard_middleware_is_the_documented_one() -> None:
    names = [type(step).__name__ for step in standard()]
    assert names == ["Tracing", "Observing", "Validating", "Retrying", "Limiting"]


def test_a_command_carries_a_span_of_the_callers_trace_and_all_attempts_the_same() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    losing = Losing(1, CallTimeout("lost"))
    steps: tuple[Middleware, ...] = (Tracing(provider), *standard()[1:], losing)
    with blocking(in_process_bus(steps)) as bus:
        user(bus, "ada", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
        sent = [dict(record.headers)["traceparent"] for record in bus.bus.pipeline.sent]
        refused = bus.execute_command(ReceiveStock(quantity=1), aggregate_id="none")

    registered, rejected = exporter.get_finished_spans()
    assert registered.name == "command RegisterUser"
    assert registered.context is not None
    assert f"{registered.context.trace_id:032x}" == TRACE
    span = f"00-{TRACE}-{registered.context.span_id:016x}-01".encode()
    assert sent == [span, span]
    assert registered.attributes is not None
    assert registered.attributes["orderflow.outcome"] == "accepted"
    assert rejected.attributes is not None
    assert rejected.attributes["orderflow.code"] == refused.code
    assert rejected.status.is_ok or rejected.status.is_unset


def test_without_an_sdk_the_callers_traceparent_is_passed_on(bus: BlockingBus[Any]) -> None:
    mine = f"00-{TRACE}-00f067aa0ba902b7-01"
    user(bus, "ada", traceparent=mine)
    (record,) = bus.bus.pipeline.sent
    assert dict(record.headers)["traceparent"] == mine.encode()


def test_every_call_is_measured_once_with_its_result(caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    losing = Losing(1, CallTimeout("lost"))
    tracing, _, *rest = standard()
    steps: tuple[Middleware, ...] = (tracing, Observing(provider), *rest, losing)
    with caplog.at_level(logging.DEBUG, "orderflow.bus"), blocking(in_process_bus(steps)) as bus:
        user(bus, "ada")
        bus.execute_command(ReceiveStock(quantity=1), aggregate_id="none")
        bus.execute_query(GetOrder(order_id="none"))
        with pytest.raises(Exception, match="is invalid"):
            user(bus, "no/id")

    data = reader.get_metrics_data()
    assert data is not None
    points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    told = {
        (point.attributes["name"], point.attributes["result"]): point.count
        for point in points
        if isinstance(point, HistogramDataPoint) and point.attributes is not None
    }
    assert told == {
        ("RegisterUser", "accepted"): 1,
        ("ReceiveStock", "item_not_found"): 1,
        ("GetOrder", "answered"): 1,
        ("RegisterUser", "invalid_data"): 1,
    }
    said = [record for record in caplog.records if getattr(record, "action", "") == "bus"]
    assert [record.levelname for record in said] == ["DEBUG", "INFO", "DEBUG", "INFO"]
    provider.shutdown()


def test_each_attempt_has_its_own_share_of_the_time() -> None:
    counting = Counting()
    steps = [Retrying(2.0) if isinstance(step, Retrying) else step for step in standard()]
    with blocking(in_process_bus((*steps, counting))) as bus:
        user(bus, "ada", timeout=60.0)
        user(bus, "bob", timeout=0.5)
    first, second = (call.timeout_s for call in counting.calls)
    assert first == 2.0
    assert 0 < second <= 0.5


def test_it_works_in_the_callers_own_loop() -> None:
    async def story() -> int:
        async with in_process_bus() as bus:
            sending = [
                bus.execute_command(RegisterUser(name="Ada"), aggregate_id=f"u-{number}")
                for number in range(10)
            ]
            outcomes = await asyncio.gather(*sending)
            found = await bus.execute_query(GetUser(user_id="u-7"), at_least=outcomes[7])
            assert found is not None
            return sum(outcome.accepted for outcome in outcomes)

    assert asyncio.run(story()) == 10


def test_a_command_that_is_parked_is_told_at_once_and_not_tried_again() -> None:
    with blocking(in_process_bus()) as bus:
        assert isinstance(bus.bus, InProcessBus)
        pipeline = bus.bus.pipeline
        pipeline.stores["user"].states.write({b"ada": b"a state that nobody can read"}, 1)
        with pytest.raises(CallParked, match="dead-letters list"):
            bus.execute_command(RegisterUser(name="Ada"), aggregate_id="ada")
        assert len(pipeline.held()) == 1
        assert len(pipeline.sent) == 1
