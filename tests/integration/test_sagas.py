"""One call places an order: one suite for both ways of coordinating it, with the same answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orderflow.placing import (
    AsyncOrderClient,
    NotPlaced,
    OrderClient,
    Placed,
    Placement,
    StillRunning,
)
from readmodels import Queries
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.topic_admin import topics_of
from sagas.create_order import Coordination
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess
from tests.support.saga_invariants import check_orders, ended
from tests.support.sagas import SagaStack, order, saga_stack
from tests.support.topics import read_topic

MANY = 300
RESERVED = ("reserveInventory",)


@pytest.fixture(scope="module")
def stack(servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SagaStack]:
    with saga_stack(servers, "sagas", tmp_path_factory.mktemp("sagas")) as running:
        running.stock(A=1_000, B=1_000, C=2, **{f"M{number}": 10 for number in range(MANY)})
        yield running


@pytest.fixture(scope="module")
def placed_ids() -> list[str]:
    """Ids of all orders of this module, for the check at its end."""
    return []


@pytest.fixture(scope="module")
def orders(stack: SagaStack) -> Iterator[OrderClient]:
    with OrderClient(stack.settings) as client:
        yield client


@pytest.fixture(params=["orchestration", "choreography"])
def coordination(request: pytest.FixtureRequest) -> Coordination:
    found: Coordination = request.param
    return found


@pytest.fixture
def order_id(prefix: str, placed_ids: list[str]) -> str:
    placed_ids.append(prefix)
    return prefix


@pytest.mark.parametrize("token", ["tok_approve", "tok_slow_700", "tok_drop", "tok_flaky"])
def test_an_order_is_placed_whatever_the_gateway_does(
    orders: OrderClient, coordination: Coordination, order_id: str, token: str
) -> None:
    placed = orders.place_order(order_id, coordination=coordination, **order(token, A=1, B=2))
    assert isinstance(placed, Placed), placed


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (order("tok_decline", A=1, B=2), ("compensated", "payment_declined", RESERVED)),
        (order(A=1, user="nobody"), ("failed", "user_not_found", ())),
        (order(A=1, B=1, C=3), ("compensated", "insufficient_stock", RESERVED)),
        (order(nothing=1), ("failed", "item_not_found", ())),
    ],
    ids=["declined", "unknown user", "too few", "unknown SKU"],
)
def test_an_order_that_cannot_be_placed_is_undone_and_says_why(
    orders: OrderClient,
    coordination: Coordination,
    order_id: str,
    wanted: dict[str, Any],
    expected: tuple[str, str, tuple[str, ...]],
) -> None:
    placed = orders.place_order(order_id, coordination=coordination, **wanted)
    assert isinstance(placed, NotPlaced), placed
    assert (placed.status, placed.code, placed.undone) == expected


def test_asked_again_the_answer_is_the_same_and_there_is_no_second_order(
    stack: SagaStack, orders: OrderClient, coordination: Coordination, order_id: str
) -> None:
    wanted = {"coordination": coordination, **order("tok_slow_500", A=1)}

    def place(_: int) -> Placement:
        return orders.place_order(order_id, **wanted)

    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(place, range(4))
    with OrderClient(stack.settings) as another:
        later = another.place_order(order_id, **wanted)
    assert isinstance(first, Placed)
    assert {*others, later} == {first}
    other = orders.place_order(order_id, coordination=coordination, **order(A=2))
    assert isinstance(other, NotPlaced)
    assert (other.status, other.code) == ("rejected", "command_id_reused")


def test_invalid_input_is_refused_at_once(orders: OrderClient, prefix: str) -> None:
    wanted = order(A=1) | {"currency": "pounds"}
    refused = orders.place_order(prefix, **wanted)
    assert isinstance(refused, NotPlaced)
    assert (refused.status, refused.code) == ("rejected", "invalid_data")


def test_an_order_of_many_lines_is_placed_at_linear_cost(
    stack: SagaStack, orders: OrderClient, order_id: str
) -> None:
    topic = topics_of(stack.settings).events("saga")
    before = sum(len(r.value or b"") for r in read_topic(stack.settings, topic))
    lines = [{"sku": f"M{number}", "quantity": 1, "unit_price": 100} for number in range(MANY)]
    placed = orders.place_order(order_id, **order() | {"lines": lines})
    assert isinstance(placed, Placed), placed
    after = sum(len(r.value or b"") for r in read_topic(stack.settings, topic))
    # Its state is some 20 KB; written for each of the 300 answers it would be 6 MB.
    assert after - before < 1_500_000


def test_asyncio_and_no_end_in_time(
    stack: SagaStack, order_id: str, coordination: Coordination
) -> None:
    async def place() -> tuple[Placement, Placement]:
        wanted = {"coordination": coordination, **order("tok_slow_1500", A=1)}
        async with AsyncOrderClient(stack.settings) as orders:
            early = await orders.place_order(order_id, timeout=0.5, **wanted)
            return early, await orders.place_order(order_id, **wanted)

    early, late = asyncio.run(place())
    assert isinstance(early, StillRunning)
    assert f"orderflow sagas show {order_id}" in early.message
    assert isinstance(late, Placed)


def test_every_law_holds_after_all_of_this(stack: SagaStack, placed_ids: list[str]) -> None:
    eventually(lambda: ended(stack.settings, placed_ids), timeout=60, every=0.5)
    check_orders(stack.settings, stack.gateway, placed_ids)


def test_operators_see_and_mend_what_is_stuck(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with (
        saga_stack(servers, prefix, tmp_path, ORDERFLOW_SAGA_TIMEOUT_MS="100") as stack,
        RoleProcess("readmodels", stack.env, tmp_path / "projector.log"),
        Queries(stack.settings) as queries,
    ):
        stack.stock(A=10)
        with CommandClient(stack.settings) as client:
            line = {"sku": "A", "quantity": 1, "unit_price": 1}
            taken = command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=[line])
            assert client.execute(taken).accepted
        with OrderClient(stack.settings) as orders:
            stuck = orders.place_order("o-1", timeout=60, **order("tok_refund_down", A=1))
        assert isinstance(stuck, NotPlaced), stuck
        assert (stuck.status, stuck.code) == ("needs_operator", "order_already_exists")
        eventually(lambda: [s.saga_id for s in queries.sagas("needs_operator")] == ["o-1"])
        listed = json.loads(run(stack, "sagas", "list", "-o", "json"))
        assert [saga["saga_id"] for saga in listed] == ["o-1"]
        assert "not undone" in run(stack, "sagas", "show", "o-1")
        stack.gateway.mend()
        assert "accepted" in run(stack, "sagas", "retry", "o-1", "--by", "ann")
        eventually(lambda: [s.saga_id for s in queries.sagas("compensated")] == ["o-1"])
        assert "invalid_transition" in run(
            stack, "sagas", "resolve", "o-1", "--by", "ann", "--note", "x", code=1
        )
        placed = json.loads(
            run(stack, "place-order", "o-2", "A:2:100", "--user", "ada", "-o", "json")
        )
        assert placed["result"] == "placed"
        assert "accepted" in run(
            stack, "sagas", "compensate", "o-2", "--by", "ann", "--reason", "customer called"
        )
        eventually(lambda: len(queries.sagas("compensated")) == 2)
        assert queries.sagas() == ()


def run(stack: SagaStack, *words: str, code: int = 0) -> str:
    """What a command line prints."""
    done = subprocess.run(
        [sys.executable, "-m", "orderflow", *words],
        env={**os.environ, **stack.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout
