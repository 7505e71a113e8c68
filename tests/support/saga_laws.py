"""The laws of conservation in the world of tests/support/world.py, read from its topics and its gateway's
ledger, independently of who wrote them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from orderflow.memory_pipeline import SCOPE
from payments.ledger import Entry
from runtime.records import OutgoingRecord
from sagas import AGGREGATES
from sagas.choreography import ORDER_CREATE, PARTS
from sagas.create_order import REASON
from schemas.ids import is_part_key, scoped_id
from schemas.inventory import Reservation, StockLevel
from schemas.order import OrderState, OrderStatus
from schemas.payment import PaymentState
from schemas.records import EventRecord, decode_event
from schemas.saga import SagaState, SagaStatus
from schemas.topics import SAGA
from tests.support.world import TOPICS, World
from verification import Drift, laws
from verification.folding import Fold, States, newest_states

T = TypeVar("T")


def check_laws(world: World) -> None:
    """Of a world in which all has come to its end."""
    sagas = world.states(SAGA, SagaState)
    orders = _confirmed(world)
    completed = {key for key, saga in sagas.items() if saga.status is SagaStatus.COMPLETED}
    assert set(orders) == {key for key in completed if sagas[key].saga in laws.PLACING}
    _check_stock(world, orders)
    _check_money(world, orders)
    check_strangers(world)
    check_log(world)
    assert drifts(world) == []


def cut_of(world: World) -> dict[str, States]:
    """The newest states of all aggregates, as verification reads them from the topics."""
    return {
        aggregate.name: newest_states(aggregate, world.stores[aggregate.name].states.data.items())
        for aggregate in AGGREGATES
    }


def drifts(world: World, cut: Mapping[str, States] | None = None) -> list[Drift]:
    """What verification says: states against histories, and against each other."""
    states = cut or cut_of(world)
    return [*drifts_of_states(world, states), *laws.all_laws(states)[1]]


def drifts_of_states(world: World, states: Mapping[str, States]) -> list[Drift]:
    """What verification says of states against their histories alone."""
    found: list[Drift] = []
    for aggregate in AGGREGATES:
        fold = Fold(aggregate, states[aggregate.name])
        for record in world.log:
            if record.topic == TOPICS.history(aggregate.name):
                fold.add(record.key, record.value)
        found += fold.finish()
    return found


def _confirmed(world: World) -> dict[str, OrderState]:
    """The sagas' orders that stand; every other one is cancelled."""
    found = world.states("order", OrderState)
    orders = {key: order for key, order in found.items() if order.made_by is not None}
    statuses = {order.status for order in orders.values()}
    assert statuses <= {OrderStatus.CONFIRMED, OrderStatus.CANCELLED}
    return {key: o for key, o in orders.items() if o.status is OrderStatus.CONFIRMED}


def _check_stock(world: World, orders: dict[str, OrderState]) -> None:
    """What is held back is what the orders need, and nothing else."""
    needed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for order_id, order in orders.items():
        for line in order.lines:
            needed[line.sku][order_id] += line.quantity
    others = strangers(world)
    held: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for key, value in world.stores["inventory"].states.data.items():
        sku, _, order_id = key.decode().partition("/")
        if order_id and (one := _state(decode_event(value), Reservation)).made_by not in others:
            held[sku][order_id] = one.quantity
    assert held == needed


def _check_money(world: World, orders: dict[str, OrderState]) -> None:
    """What the gateway has, and what the books say it has, is what the orders cost."""
    payments, others = world.states("payment", PaymentState), strangers(world)
    theirs = {key for key, payment in payments.items() if payment.made_by in others}
    payments = {key: payment for key, payment in payments.items() if key not in theirs}
    owed = {key: order.total for key, order in orders.items() if order.total}
    book = world.gateway.ledger.book()
    for movements in (book.charges, book.refunds):
        assert len({entry.key for entry in movements}) == len(movements)
    taken: Counter[str] = Counter()
    for entry in book.charges:
        taken[payment_of(entry)] += entry.amount
    for entry in book.refunds:
        taken[payment_of(entry)] -= entry.amount
    taken = Counter({key: amount for key, amount in taken.items() if key not in theirs})
    assert {key: amount for key, amount in taken.items() if amount} == owed
    kept = {key: payment.captured - payment.refunded for key, payment in payments.items()}
    assert {key: amount for key, amount in kept.items() if amount} == owed


def strangers(world: World) -> set[str | None]:
    """Who makes what no order has to answer for: people, and the parts that they have begun themselves."""
    names = {part.saga for part in PARTS}
    sagas = world.states(SAGA, SagaState).items()
    theirs = {key: saga for key, saga in sagas if saga.saga in names and saga.made_by is None}
    return {None, *(scoped_id(key, saga.scope or "") for key, saga in theirs.items())}


def check_strangers(world: World) -> None:
    """What no saga has made is as its maker left it, and an order takes back its own parts alone, and is
    completed by no others.
    """
    for order in world.states("order", OrderState).values():
        assert order.made_by is not None or order.status is OrderStatus.CONFIRMED
    opened: Counter[str] = Counter()
    for _, event in _events(world, TOPICS.history("inventory")):
        if event.type == "StockReserved":
            opened["made"] += msgspec.json.decode(event.data)["made_by"] is None
    for key, value in world.stores["inventory"].states.data.items():
        if is_part_key(key.decode()):
            opened["there"] += _state(decode_event(value), Reservation).made_by is None
    assert opened["made"] == opened["there"]
    unsigned = {key for key, p in world.states("payment", PaymentState).items() if not p.made_by}
    for key, event in _events(world, TOPICS.history("payment")):
        if key.decode() in unsigned and event.type == "PaymentRefundRequested":
            assert msgspec.json.decode(event.data)["reason"] != REASON
    sagas = world.states(SAGA, SagaState)
    whole = {key: saga for key, saga in sagas.items() if saga.saga in laws.PLACING}
    own = {
        f"{key}{part.suffix}": scoped_id(key, saga.scope or "")
        for key, saga in whole.items()
        for part in PARTS
    }
    for key, event in _events(world, TOPICS.history(SAGA)):
        if event.type == "SagaCompensationOrdered":
            by_order = msgspec.json.decode(event.data)["by"] == ORDER_CREATE
            part = key.decode()
            assert not by_order or (part not in whole and sagas[part].made_by == own[part])
    for order_id, saga in whole.items():
        if saga.saga == ORDER_CREATE and saga.status is SagaStatus.COMPLETED:
            for part in (f"{order_id}{each.suffix}" for each in PARTS):
                assert sagas[part].made_by == own[part]


def payment_of(entry: Entry) -> str:
    """The payment that a movement at the gateway belongs to: its key is the id with the scope."""
    payment_id, dot, scope = entry.key.rpartition(".")
    assert (dot, scope) == (".", SCOPE)
    return payment_id


def check_log(world: World) -> None:
    """Nothing was ever sold that was not there; each version once, and each command decided once."""
    for aggregate in AGGREGATES:
        versions: Counter[bytes] = Counter()
        for key, event in _events(world, TOPICS.history(aggregate.name)):
            versions[key] += 1
            assert event.version == versions[key]
    for key, event in _events(world, TOPICS.events("inventory")):
        if not is_part_key(key.decode()):
            level = _state(event, StockLevel)
            assert not list(laws.stock(key.decode(), level, level.reserved))
            assert level.reserved >= 0
    outcomes = Counter((r.topic, r.key) for r in world.log if r.topic.endswith(".outcomes"))
    assert all(count == 1 for count in outcomes.values())


def _events(world: World, topic: str) -> Iterator[tuple[bytes, EventRecord]]:
    records: Iterator[OutgoingRecord] = (r for r in world.log if r.topic == topic)
    return ((r.key or b"", decode_event(r.value)) for r in records if r.value is not None)


def _state(event: EventRecord, kind: type[T]) -> T:
    return msgspec.json.decode(event.state, type=kind)
