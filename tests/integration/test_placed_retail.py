"""`orderflow import place-online-retail` with a small file, through every service as a process, to a
reconciliation without differences; and what it says when something is different.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.placing import NotPlaced, OrderClient, Placed, Placement, StillRunning
from orderflow.shop.check import Difference, differences
from orderflow.shop.placed_truth import PlacedTruth, order_differences, placed_truth
from readmodels import Queries
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from sagas.create_order import Coordination
from schemas.order import OrderState
from schemas.payment import PaymentState
from schemas.saga import SagaState, SagaStatus
from tests.support.commanding import command
from tests.support.invariants import check_log
from tests.support.processes import RoleProcess
from tests.support.retail import written
from tests.support.sagas import COORDINATIONS, SagaStack, order, saga_stack

pytestmark = pytest.mark.slow

INVOICES = 60
MANY = 250
OPENING = 60
DECLINED = 0.2
FEW = 10


@pytest.fixture(scope="module", params=COORDINATIONS)
def coordination(request: pytest.FixtureRequest) -> Coordination:
    found: Coordination = request.param
    return found


@pytest.fixture(scope="module")
def stack(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory, coordination: Coordination
) -> Iterator[SagaStack]:
    folder = tmp_path_factory.mktemp(f"placed-{coordination}")
    with (
        saga_stack(servers, f"placed-{coordination}", folder) as running,
        RoleProcess("readmodels", running.env, folder / "projector.log"),
    ):
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of a winter: returns, write-offs, guests, gifts, doubled lines, a wholesaler."""
    random = Random(7)
    codes = [f"{20_000 + n}{random.choice(['', 'A', 'b'])}" for n in range(40)] + ["POST"]
    rows: list[tuple[object, ...]] = []
    for number in range(INVOICES):
        kind = random.choices(["sale", "return", "mixed"], [80, 10, 10])[0]
        invoice = f"{'C' if kind == 'return' else ''}{536_365 + number}"
        customer = random.choice(["", "17850", "13047", "12583"])
        for line in range(random.randint(1, 12)):
            back = kind == "return" or (kind == "mixed" and line == 0)
            pieces = -random.randint(1, 9) if back else random.randint(1, 25)
            price = random.choice(["2.55", "0.0", "0.125", "16.95"])
            rows.append((invoice, random.choice(codes), pieces, price, customer))
    rows += [("540000", f"W{n}", 1 + n % 3, "1.25", "14911") for n in range(MANY)]
    lines = [
        f"{invoice},{code},WHITE LANTERN,{pieces},2010-12-01T08:26:00,{price},{customer},France"
        for invoice, code, pieces, price, customer in rows
    ]
    return written(tmp_path_factory.mktemp("retail"), *lines)


def run(stack: SagaStack, file: Path, *more: str, code: Exit = Exit.OK) -> dict[str, Any]:
    """The command's JSON answer, with its exit code checked."""
    words = ("import", "place-online-retail", str(file), "--at-once", str(FEW), "-o", "json", *more)
    result = CliRunner().invoke(app, words, env=stack.env)
    assert result.exit_code == code, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.fixture(scope="module")
def options(coordination: Coordination) -> tuple[str, ...]:
    return (
        *("--opening-stock", str(OPENING), "--declined", str(DECLINED)),
        *("--coordination", coordination),
    )


@pytest.fixture(scope="module")
def report(stack: SagaStack, file: Path, options: tuple[str, ...]) -> dict[str, Any]:
    return run(stack, file, *options)


@pytest.fixture(scope="module")
def placements(stack: SagaStack, report: dict[str, Any]) -> dict[str, Placement]:
    """How the orders ended, as the log has it."""
    assert report["orders"]
    sagas = check_log(stack.settings).states["saga"].items()
    ends = {key: cast(SagaState, saga) for key, (_, saga) in sagas if ":" not in key}
    return {
        order_id: Placed(order_id, 0)
        if saga.status is SagaStatus.COMPLETED
        else NotPlaced(order_id, saga.status.value, str(saga.code), "")
        for order_id, saga in ends.items()
    }


def test_every_order_ends_and_every_view_is_as_they_ended(report: dict[str, Any]) -> None:
    assert report["differences"] == []
    assert report["still_running"] == 0
    assert report["placed"] + sum(report["not_placed"].values()) == report["orders"]
    assert set(report["not_placed"]) == {"insufficient_stock", "payment_declined"}
    assert report["placed"] > 0
    assert report["left_out"]["return"] > 0
    assert report["rows"] == report["lines"] + sum(report["left_out"].values())


def test_only_placed_orders_are_paid_in_the_log_and_exactly_their_totals(
    stack: SagaStack, report: dict[str, Any]
) -> None:
    states = check_log(stack.settings).states
    orders = {key: cast(OrderState, one).total for key, (_, one) in states["order"].items()}
    kept = {
        key: cast(PaymentState, one).captured - cast(PaymentState, one).refunded
        for key, (_, one) in states["payment"].items()
    }
    assert {key: amount for key, amount in kept.items() if amount} == {
        key: total for key, total in orders.items() if total
    }
    assert (len(orders), sum(kept.values())) == (report["placed"], report["amount"])


def test_placing_the_file_again_changes_nothing(
    stack: SagaStack, file: Path, options: tuple[str, ...], report: dict[str, Any]
) -> None:
    again = run(stack, file, *options)
    varying = {"seconds": 0, "orders_per_second": 0}
    assert again | varying == report | varying


def found(
    stack: SagaStack, truth: PlacedTruth, placements: dict[str, Placement]
) -> list[Difference]:
    with Queries(stack.settings) as queries:
        return [
            *differences(truth.views, queries),
            *order_differences(truth, placements, queries),
        ]


def places(wrong: list[Difference]) -> set[tuple[str, str]]:
    return {(one.what, one.field) for one in wrong}


def test_an_order_that_is_expected_otherwise_is_told_with_all_that_follows_from_it(
    stack: SagaStack, file: Path, placements: dict[str, Placement]
) -> None:
    placed = {key for key, end in placements.items() if isinstance(end, Placed)}
    assert found(stack, placed_truth(file, placed, OPENING), placements) == []
    assert "540000" in placed  # the wholesaler's SKUs are its own
    untold = {**placements, "540000": NotPlaced("540000", "failed", "", "")}
    wrong = places(found(stack, placed_truth(file, placed - {"540000"}, OPENING), untold))
    assert {
        ("order 540000", "exists"),
        ("user 14911", "orders"),
        ("user 14911", "spent"),
        ("all users", "spent GBP"),
        ("SKU W0", "reserved"),
        ("SKU W0", "available"),
    } <= wrong
    missing = next(key for key in placements if key not in placed)
    untold = {**placements, missing: Placed(missing, 0)}
    wrong = places(found(stack, placed_truth(file, {*placed, missing}, OPENING), untold))
    assert (f"order {missing}", "exists") in wrong


def test_wrong_lines_an_oversold_sku_and_an_open_order_are_told(
    stack: SagaStack, file: Path, placements: dict[str, Placement]
) -> None:
    placed = {key for key, end in placements.items() if isinstance(end, Placed)}
    truth = placed_truth(file, placed, OPENING)
    sku, pieces, pence = truth.lines["540000"][-1]
    truth.lines["540000"][-1] = (sku, pieces, pence + 1)
    truth.views.stock["W0"].reserved = OPENING + 1
    missing = next(key for key in placements if key not in placed)
    asked = {**placements, missing: StillRunning(missing, "")}
    del asked["540000"]
    assert {
        ("order 540000", "asked for"),
        (f"order {missing}", "ended"),
        ("SKU W0", "available, at least"),
    } <= places(found(stack, truth, asked))
    assert ("order 540000", "lines") in places(found(stack, truth, placements))


def test_a_shop_in_which_something_else_was_sold_is_exit_code_1(
    stack: SagaStack, file: Path, options: tuple[str, ...], report: dict[str, Any]
) -> None:
    assert report["differences"] == []
    with CommandClient(stack.settings) as client:
        lost = command("W7", "AdjustStock", delta=-1, reason="lost")
        assert client.execute(lost).accepted
    with OrderClient(stack.settings) as orders:
        wanted = order(W8=1, user="14911")
        assert isinstance(orders.place_order("another-1", **wanted), Placed)
    again = run(stack, file, *options, code=Exit.NO)
    wrong = {(one["what"], one["field"]) for one in again["differences"]}
    assert wrong == {
        ("SKU W7", "on_hand"),
        ("SKU W7", "available"),
        ("SKU W8", "reserved"),
        ("SKU W8", "available"),
        ("user 14911", "orders"),
        ("user 14911", "by_status"),
        ("user 14911", "spent"),
        ("top users", "orders"),
        ("top users", "spent GBP"),
        ("all users", "spent GBP"),
    }


def test_another_opening_stock_in_the_same_shop_is_refused_before_anything_is_placed(
    stack: SagaStack, file: Path
) -> None:
    words = ("import", "place-online-retail", str(file), "--opening-stock", str(OPENING + 1))
    result = CliRunner().invoke(app, words, env=stack.env)
    assert result.exit_code == Exit.NO
    assert "ORDERFLOW_TOPIC_PREFIX" in result.stderr
