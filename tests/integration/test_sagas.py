"""One call places an order: one suite for both ways of coordinating it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orderflow.placing import NotPlaced, OrderClient, Placed
from runtime.embedded import ServersAddress
from sagas.create_order import Coordination
from tests.support.sagas import SagaStack, order, saga_stack


@pytest.fixture(scope="module")
def stack(servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SagaStack]:
    with saga_stack(servers, "sagas", tmp_path_factory.mktemp("sagas")) as running:
        running.stock(A=100, B=100, C=2)
        yield running


@pytest.fixture(scope="module")
def orders(stack: SagaStack) -> Iterator[OrderClient]:
    with OrderClient(stack.settings) as client:
        yield client


@pytest.fixture(params=["orchestration", "choreography"])
def coordination(request: pytest.FixtureRequest) -> Coordination:
    found: Coordination = request.param
    return found


def test_an_order_is_placed(orders: OrderClient, coordination: Coordination, prefix: str) -> None:
    placed = orders.place_order(prefix, coordination=coordination, **order(A=1, B=2))
    assert isinstance(placed, Placed), placed


def test_a_declined_payment_undoes_the_reservations(
    orders: OrderClient, coordination: Coordination, prefix: str
) -> None:
    placed = orders.place_order(prefix, coordination=coordination, **order("tok_decline", A=1, B=2))
    assert isinstance(placed, NotPlaced), placed
    assert (placed.status, placed.code) == ("compensated", "payment_declined")
    assert placed.undone == ("reserveInventory",)
