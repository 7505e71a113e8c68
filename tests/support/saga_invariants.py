"""What has to hold after orders were placed, whatever happened meanwhile: read from the topics and the
gateway's ledger, independently of who wrote them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import cast

from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState
from schemas.records import decode_event
from schemas.saga import ENDED, SagaState, SagaStatus
from tests.support.gateway import GatewayProcess
from tests.support.invariants import LogReading, check_log
from tests.support.topics import read_topic


def ended(settings: Settings, order_ids: Iterable[str]) -> bool:
    """Whether all these sagas have ended, or wait for an operator."""
    endings = {"SagaCompleted", "SagaFailed", "SagaCompensated", "SagaNeedsOperator"}
    over = {
        (record.key or b"").decode()
        for record in read_topic(settings, topics_of(settings).history("saga"))
        if decode_event(record.value or b"").type in endings
    }
    return set(order_ids) <= over


def check_orders(
    settings: Settings, gateway: GatewayProcess, order_ids: Iterable[str]
) -> dict[str, SagaState]:
    """Asserts every law, and returns the sagas of these orders."""
    reading = check_log(settings)
    sagas = {key: cast(SagaState, saga) for key, (_, saga) in reading.states["saga"].items()}
    for saga_id, saga in sagas.items():
        assert saga.status in ENDED or saga.status is SagaStatus.NEEDS_OPERATOR, (saga_id, saga)
    found = {order_id: sagas[order_id] for order_id in order_ids}
    placed = {key for key, saga in found.items() if saga.status is SagaStatus.COMPLETED}
    orders = {key: cast(OrderState, order) for key, (_, order) in reading.states["order"].items()}
    assert set(orders) == placed
    assert all(order.status is OrderStatus.CONFIRMED for order in orders.values())
    _check_reservations(reading, orders)
    _check_payments(reading, orders, gateway)
    _check_correlation(settings, set(found))
    return found


def _check_reservations(reading: LogReading, orders: dict[str, OrderState]) -> None:
    """What is held back is what placed orders need, and nothing else."""
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for order_id, order in orders.items():
        for line in order.lines:
            wanted[line.sku][order_id] += line.quantity
    held = {sku: dict(parts) for sku, parts in reading.reservations.items() if parts}
    assert held == {sku: dict(parts) for sku, parts in wanted.items()}


def _check_payments(
    reading: LogReading, orders: dict[str, OrderState], gateway: GatewayProcess
) -> None:
    """The books agree: nothing is charged twice, and only placed orders are paid in the end."""
    book = gateway.book()
    charged = Counter(entry.key for entry in book.charges)
    assert all(count == 1 for count in charged.values()), charged
    taken = {entry.key: entry.amount for entry in book.charges}
    for entry in book.refunds:
        taken[entry.key] -= entry.amount
    for payment_id, (_, state) in reading.states["payment"].items():
        payment = cast(PaymentState, state)
        kept = payment.captured - payment.refunded
        assert kept == (orders[payment_id].total if payment_id in orders else 0), payment_id
        assert kept == taken.get(payment_id, 0), payment_id
    assert {key for key, amount in taken.items() if amount} == set(orders)


def _check_correlation(settings: Settings, order_ids: set[str]) -> None:
    """Every event that an order caused names it."""
    topics = topics_of(settings)
    for aggregate in ("saga", "payment", "order"):
        for record in read_topic(settings, topics.history(aggregate)):
            order_id = (record.key or b"").decode().partition(":")[0]
            if order_id in order_ids:
                assert record.headers["correlation-id"].decode() == order_id
