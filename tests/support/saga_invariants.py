"""What has to hold after orders were placed, whatever happened meanwhile: read from the topics and the
gateway's ledger, independently of who wrote them.

It knows the domain's and the sagas' pure functions, and nothing of the processors. What was sent is in
tests/support/saga_messages.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import cast

from runtime.settings import Settings
from runtime.topic_admin import topics_of
from sagas.choreography import PARTS
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState
from schemas.records import decode_event
from schemas.saga import ENDED, SagaState, SagaStatus
from tests.support.commanding import eventually_nothing
from tests.support.gateway import GatewayProcess
from tests.support.invariants import LogReading, check_log
from tests.support.saga_messages import (
    SagaLog,
    check_answers,
    check_correlation,
    check_follow_ups,
    check_reactions,
)
from tests.support.topics import read_topic
from verification import laws

ENDINGS = {"SagaCompleted", "SagaFailed", "SagaCompensated", "SagaNeedsOperator", "SagaResolved"}


def ended(settings: Settings, order_ids: Iterable[str], endings: Collection[str] = ENDINGS) -> bool:
    """Whether all these sagas have ended, or wait for an operator; ``endings``: by which events."""
    newest = {
        (record.key or b"").decode(): decode_event(record.value or b"").type
        for record in read_topic(settings, topics_of(settings).history("saga"))
    }
    return all(newest.get(order_id) in endings for order_id in order_ids)


def check_orders(
    settings: Settings,
    gateway: GatewayProcess,
    order_ids: Iterable[str],
    by_hand: Collection[str] = (),
) -> dict[str, SagaState]:
    """Waits until nothing is under way, asserts every law, and returns the sagas of these orders.

    ``by_hand``: ids of orders that no saga made.
    """
    eventually_nothing(lambda: SagaLog(settings).undecided(), timeout=60, every=0.5)
    reading = check_log(settings)
    sagas = {key: cast(SagaState, saga) for key, (_, saga) in reading.states["saga"].items()}
    for saga_id, saga in sagas.items():
        assert saga.status in ENDED or saga.status is SagaStatus.NEEDS_OPERATOR, (saga_id, saga)
    found = {order_id: sagas[order_id] for order_id in order_ids}
    placed = {key for key, saga in found.items() if saga.status is SagaStatus.COMPLETED}
    made = {key: cast(OrderState, order) for key, (_, order) in reading.states["order"].items()}
    cancelled = {key for key, order in made.items() if order.status is OrderStatus.CANCELLED}
    orders = {key: order for key, order in made.items() if key not in {*by_hand, *cancelled}}
    assert set(orders) == placed
    assert all("createOrder" in found[key].undone for key in cancelled)
    assert all(order.status is OrderStatus.CONFIRMED for order in orders.values())
    stuck = {key.partition(":")[0] for key, saga in sagas.items() if saga.status not in ENDED}
    _check_parts(sagas, placed, stuck)
    _check_laws(reading, found, orders, stuck)
    _check_reservations(reading, orders, stuck)
    _check_payments(reading, orders, gateway, stuck)
    log = SagaLog(settings)
    check_follow_ups(log)
    check_reactions(log)
    check_answers(log, reading.outcomes)
    check_correlation(log, found)
    return found


def _check_parts(sagas: dict[str, SagaState], placed: set[str], stuck: set[str]) -> None:
    """Of a choreographed order, each service has done its part, or has nothing of it left."""
    undoable = [part for part in PARTS if part.step.undo is not None]
    for part in PARTS:
        for saga_id, saga in sagas.items():
            order_id = saga_id.removesuffix(part.suffix)
            if order_id == saga_id or order_id in stuck:
                continue
            done = saga.status is SagaStatus.COMPLETED
            assert done == (order_id in placed) or part not in undoable, (saga_id, saga)


def _check_laws(
    reading: LogReading,
    sagas: dict[str, SagaState],
    orders: dict[str, OrderState],
    stuck: set[str],
) -> None:
    """What `orderflow verify` says of each order."""
    held: dict[str, dict[str, int]] = defaultdict(dict)
    for sku, parts in reading.reservations.items():
        for order_id, pieces in parts.items():
            held[order_id][sku] = pieces
    payments = reading.states["payment"]
    for order_id, saga in sagas.items():
        if order_id not in stuck:
            paid = payments[order_id][1] if order_id in payments else None
            made = orders.get(order_id)
            assert not list(laws.order(order_id, saga, made, paid, held.get(order_id, {})))


def _check_reservations(
    reading: LogReading, orders: dict[str, OrderState], stuck: set[str]
) -> None:
    """What is held back is what placed orders need, and nothing else."""
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for order_id, order in orders.items():
        for line in order.lines:
            wanted[line.sku][order_id] += line.quantity
    held = {
        sku: {order_id: pieces for order_id, pieces in parts.items() if order_id not in stuck}
        for sku, parts in reading.reservations.items()
    }
    assert {sku: parts for sku, parts in held.items() if parts} == wanted


def _check_payments(
    reading: LogReading,
    orders: dict[str, OrderState],
    gateway: GatewayProcess,
    stuck: set[str],
) -> None:
    """The books agree, movement by movement, and only placed orders are paid in the end."""
    book = gateway.book()
    for entries in (book.charges, book.refunds):
        twice = [key for key, n in Counter(entry.key for entry in entries).items() if n > 1]
        assert not twice, f"money moved twice: {twice}"
    payments = {
        key: cast(PaymentState, payment)
        for key, (_, payment) in reading.states["payment"].items()
        if key not in stuck
    }
    paid_by = {
        cast(PaymentState, p).gateway_key: key for key, (_, p) in reading.states["payment"].items()
    }
    charged = {paid_by[entry.key]: entry.amount for entry in book.charges}
    refunded = {paid_by[entry.key]: entry.amount for entry in book.refunds}
    charged = {key: amount for key, amount in charged.items() if key not in stuck}
    refunded = {key: amount for key, amount in refunded.items() if key not in stuck}
    assert charged == {key: p.captured for key, p in payments.items() if p.captured}
    assert refunded == {key: p.refunded for key, p in payments.items() if p.refunded}
    kept = {key: p.captured - p.refunded for key, p in payments.items() if p.captured > p.refunded}
    assert kept == {key: order.total for key, order in orders.items() if order.total}
