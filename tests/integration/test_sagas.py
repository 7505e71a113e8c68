"""One call places an order: one suite for both ways of coordinating it, with the same answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orderflow import placing
from orderflow.placing import (
    AsyncOrderClient,
    NotPlaced,
    OrderClient,
    Placed,
    Placement,
    StillRunning,
    order_command,
)
from readmodels import Queries
from runtime.client import CommandClient, OutgoingCommand
from runtime.embedded import ServersAddress
from runtime.topic_admin import topics_of
from sagas.create_order import Coordination
from tests.support.commanding import command, eventually
from tests.support.processes import RoleProcess
from tests.support.saga_invariants import check_orders, ended
from tests.support.sagas import COORDINATIONS, SagaStack, order, saga_stack
from tests.support.topics import read_topics

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


@pytest.fixture(params=COORDINATIONS)
def coordination(request: pytest.FixtureRequest) -> Coordination:
    found: Coordination = request.param
    return found


@pytest.fixture
def order_id(prefix: str, placed_ids: list[str]) -> str:
    placed_ids.append(prefix)
    return prefix


@pytest.mark.parametrize("token", ["tok_approve", "tok_slow_700", "tok_drop", "tok_flaky"])
def test_an_order_is_placed_whatever_the_gateway_does(
    orders: OrderClient,
    coordination: Coordination,
    order_id: str,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a conversation of the client's own, which the check at the end finds everywhere; and the end
    is told to who waits, not only to who asks again.
    """
    monkeypatch.setattr(placing, "ASK_AGAIN_S", 60.0)
    placed = orders.place_order(
        order_id,
        coordination=coordination,
        correlation_id=f"talk-{order_id}",
        **order(token, A=1, B=2),
    )
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
    with OrderClient(stack.settings) as another, ThreadPoolExecutor(5) as threads:
        clients = [orders, another, orders, orders, another]
        first, *others = threads.map(lambda each: each.place_order(order_id, **wanted), clients)
        later = another.place_order(order_id, **wanted)
    assert isinstance(first, Placed)
    assert {*others, later} == {first}
    other = orders.place_order(order_id, coordination=coordination, **order(A=2))
    assert isinstance(other, NotPlaced)
    assert (other.status, other.code) == ("rejected", "command_id_reused")


def test_under_another_command_id_the_same_order_changes_nothing_and_another_is_refused(
    stack: SagaStack, orders: OrderClient, coordination: Coordination, order_id: str
) -> None:
    assert isinstance(orders.place_order(order_id, coordination=coordination, **order(A=1)), Placed)

    def start(pieces: int) -> OutgoingCommand:
        one = order_command(order_id, coordination=coordination, **order(A=pieces))
        return replace(one, command_id=f"again-{pieces}")

    with CommandClient(stack.settings) as client:
        same, other = client.execute(start(1)), client.execute(start(2))
    assert same.accepted
    assert other.code == "saga_already_exists"
    assert other.version == same.version


def test_invalid_input_is_refused_at_once_with_the_field(
    stack: SagaStack, orders: OrderClient, coordination: Coordination, prefix: str
) -> None:
    wanted = {"coordination": coordination, **order(A=1), "currency": "pounds"}
    refused = orders.place_order(prefix, **wanted)
    assert isinstance(refused, NotPlaced)
    assert (refused.status, refused.code) == ("rejected", "invalid_data")
    with CommandClient(stack.settings) as client:
        assert client.execute(order_command(prefix, **wanted)).field == "input.currency"


def test_an_order_of_many_lines_is_placed_at_linear_cost(
    stack: SagaStack, orders: OrderClient, coordination: Coordination, order_id: str
) -> None:
    lines = [{"sku": f"M{number}", "quantity": 1, "unit_price": 100} for number in range(MANY)]
    records, size = saga_records(stack)
    placed = orders.place_order(
        order_id, coordination=coordination, timeout=60, **order() | {"lines": lines}
    )
    assert isinstance(placed, Placed), placed
    more, larger = saga_records(stack)
    # A line has one answer, with its outcome and its event; the order some 200 records at most.
    assert more - records < 3 * MANY + 200
    # Its state is some 20 KB; written for each of the 300 answers it would be 6 MB.
    assert larger - size < 1_500_000


def saga_records(stack: SagaStack) -> tuple[int, int]:
    """How many records there are on the sagas' topics, and their bytes."""
    topics = topics_of(stack.settings)
    kinds = (topics.commands, topics.outcomes, topics.history, topics.events)
    found = read_topics(stack.settings, [kind("saga") for kind in kinds])
    sizes = [len(record.value or b"") for records in found.values() for record in records]
    return len(sizes), sum(sizes)


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


def test_what_times_out_is_undone_and_what_cannot_be_undone_waits_for_an_operator(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with saga_stack(servers, prefix, tmp_path, ORDERFLOW_SAGA_TIMEOUT_MS="300") as stack:
        stack.stock(A=10)
        ids = [f"{token}-{kind}" for kind in COORDINATIONS for token in ("down", "refund_down")]
        stuck = [one for one in ids if one.startswith("refund_down")]
        stack.take(*stuck)
        with CommandClient(stack.settings) as client, OrderClient(stack.settings) as orders:

            def place(one: str) -> Placement:
                token, _, kind = one.partition("-")
                return orders.place_order(
                    one, timeout=60, coordination=kind, **order(f"tok_{token}", A=1)
                )

            with ThreadPoolExecutor(len(ids)) as threads:
                answers = dict(zip(ids, threads.map(place, ids), strict=True))
            for one, answer in answers.items():
                assert isinstance(answer, NotPlaced)
                told = answer.status, answer.code, answer.undone
                assert told == (
                    ("needs_operator", "order_already_exists", RESERVED)
                    if one in stuck
                    else ("compensated", "timed_out", ("processPayment", *RESERVED))
                )
            charges = stack.gateway.book().charges
            assert {entry.key.rpartition(".")[0] for entry in charges} == set(stuck)
            # Who is stuck; in a choreography that is not the order's service.
            asked = [stuck[0], f"{stuck[1]}:payment"]
            eventually(lambda: ended(stack.settings, asked), timeout=60, every=0.5)
            check_orders(stack.settings, stack.gateway, ids, by_hand=stuck)
            for one in asked:
                assert client.execute(command(one, "RetrySaga", by="ann")).accepted
        stack.gateway.mend()
        good = {"SagaCompensated"}
        eventually(lambda: ended(stack.settings, ids, good), timeout=60, every=0.5)
        check_orders(stack.settings, stack.gateway, ids, by_hand=stuck)


def test_operators_see_and_mend_what_is_stuck(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with (
        saga_stack(servers, prefix, tmp_path, ORDERFLOW_SAGA_TIMEOUT_MS="100") as stack,
        RoleProcess("readmodels", stack.env, tmp_path / "projector.log"),
        Queries(stack.settings) as queries,
    ):
        stack.stock(A=10)
        stack.take("o-1")
        with OrderClient(stack.settings) as orders:
            stuck = orders.place_order("o-1", timeout=60, **order("tok_refund_down", A=1))
        assert isinstance(stuck, NotPlaced), stuck
        assert (stuck.status, stuck.code) == ("needs_operator", "order_already_exists")
        eventually(lambda: [s.saga_id for s in queries.sagas("needs_operator")] == ["o-1"])
        listed = json.loads(run(stack, "sagas", "list", "-o", "json"))
        assert [saga["saga_id"] for saga in listed] == ["o-1"]
        assert "not undone" in run(stack, "sagas", "show", "o-1")
        # Before refunds work again: then it would end by itself.
        assert "accepted" in run(stack, "sagas", "retry", "o-1", "--by", "ann")
        stack.gateway.mend()
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
        check_orders(stack.settings, stack.gateway, ["o-1", "o-2"], by_hand=["o-1"])


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
