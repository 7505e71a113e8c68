"""Orders over all services under a random scheduler: whatever happens, each ends well or is undone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import event, given, seed, settings

from sagas.choreography import PARTS, Part
from sagas.create_order import PROCESS_PAYMENT, Coordination
from sagas.tokens import parse_token
from schemas.inventory import StockLevel
from schemas.records import decode_command
from schemas.saga import ENDED, SagaState, SagaStatus
from schemas.topics import SAGA
from tests.support.commanding import command, parking_order
from tests.support.saga_laws import check_laws
from tests.support.saga_stories import drain
from tests.support.world import Place, World

SKUS: Final = ("A", "B", "C")
STOCK: Final = 5
COORDINATIONS: Final[tuple[Coordination, ...]] = ("orchestration", "choreography")
TOKENS: Final = (
    *("tok_approve", "tok_approve", "tok_approve", "tok_decline", "tok_slow_0", "tok_drop"),
    *("tok_flaky", "tok_down", "tok_refund_down", "tok_refund_down"),
)
UNDOING: Final = ("ReleaseReservation", "RequestRefund", "CancelOrder")
SENT: Final = ("ValidateUser", "ReserveStock", "RequestPayment", "CreateOrder", *UNDOING)
"""What sagas send to others."""

GOING_BACK: Final = (*UNDOING, "CapturePayment", "FailPayment", "RefundPayment")
"""Whose bugs stand in the way back: what undoes, and what the gateway's side says of it."""

BUGS: Final = (*SENT, *UNDOING, *GOING_BACK)
"""Which handlers may have a bug, or refuse in passing; undoing ones the more, for without that nobody needs
an operator."""

SCHEDULING: Final = (
    *("go",) * 24,
    *("twice",) * 3,
    *("wait",) * 2,
    *("together", "abort", "again", "crash", "lose an appointment", "order back", "order back"),
)
"""What may happen where every message arrives at last; each as often as it is likely."""

STRANGERS: Final = (*("stranger",) * 8, *("thief",) * 4, "fails payment", "refunds early")
"""What others do under an order's ids, or by hand."""

MEDDLING: Final = (*SCHEDULING, *STRANGERS)

FAULTS: Final = (
    *SCHEDULING,
    # Not what is done to a payment by hand: where a bug then refuses what the gateway has charged, a person
    # has to look at both.
    *STRANGERS[:-2:4],
    *("lose", "bug", "refuse", "operator retries", "operator discards") * 3,
    *("mend", "retry"),
)
"""And what may happen where some do not, or are met by a bug."""

WAITS_MS: Final = (1, 400, 1_000, 5_000, 20_000, 60_000, 200_000)

orders = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(("ada",) * 8 + ("gone", "nobody")),
            "skus": st.lists(st.sampled_from(SKUS), min_size=1, max_size=3),
            "unit_price": st.sampled_from((100, 100, 100, 0)),
            "payment_token": st.sampled_from(TOKENS),
            "coordination": st.sampled_from(COORDINATIONS),
        }
    ),
    min_size=1,
    max_size=5,
)


def moves(kinds: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, int]]]:
    """What happens, and to which of those to which it can happen."""
    move = st.tuples(st.sampled_from(kinds), st.integers(0, 9_999))
    return st.lists(move, max_size=40) | st.lists(move, min_size=40, max_size=160)


@dataclass
class Shop:
    """A world with orders; ``hindered``: those whose undoing was made to fail."""

    world: World
    ids: tuple[str, ...]
    hindered: set[str] = field(default_factory=set)

    def sagas(self) -> dict[str, SagaState]:
        return self.world.states(SAGA, SagaState)

    def stuck(self) -> list[str]:
        """Sagas that wait for an operator."""
        return [k for k, s in self.sagas().items() if s.status is SagaStatus.NEEDS_OPERATOR]

    def move(self, what: str, which: int) -> None:
        """One thing that may happen."""
        world, busy = self.world, self.world.busy()
        order_id = self.ids[which % len(self.ids)]
        match what:
            case "wait":
                world.tick(WAITS_MS[which % len(WAITS_MS)])
            case "lose an appointment":
                world.tick(WAITS_MS[which % len(WAITS_MS)], lost=True)
            case "crash":
                world.crash((SAGA, SAGA, "inventory", "payment")[which % 4])
            case "again":
                world.repeat(which % len(world.sent))
            case "order back":
                world.send(command(order_id, "CompensateSaga", by="ann", reason="changed mind"))
            case "retry":
                world.send(command(order_id, "RetrySaga", by="ann"))
            case "bug":
                world.broken.add((*BUGS, "RecordAnswer", "WakeSaga")[which % (len(BUGS) + 2)])
            case "refuse":
                self._refuse(BUGS[which % len(BUGS)])
            case "stranger":
                self._meet(order_id, which)
            case "thief":
                self._steal(order_id, which)
            case "fails payment":
                world.send(command(order_id, "FailPayment", reason="by hand"))
            case "refunds early":
                early = command(order_id, "RequestRefund", reason="by hand")
                world.send(replace(early, expected_version=1))
            case "operator retries":
                world.settle_held()
            case "operator discards":
                self._discard(which)
            case "mend":
                world.broken.clear()
                world.refusing.clear()
            case _:
                if busy:
                    self._go(what, *busy[which % len(busy)], which)

    def _go(self, how: str, kind: str, place: Any, which: int) -> None:
        world = self.world
        if kind == "deliver" and how in ("together", "abort"):
            waiting = (p for p, queue in world.queues.items() if p[0] == place[0] for _ in queue)
            places = tuple(waiting)[: 1 + which % 5]
            (world.abort if how == "abort" else world.deliver)(*places)
        elif kind == "deliver" and how == "lose":
            self._lose(place)
        elif how == "twice":
            again = {"deliver": world.deliver, "hear": world.hear, "ask": world.ask_gateway}[kind]
            cast(Any, again)(place, twice=True)
        else:
            world.do(kind, place)

    def _meet(self, order_id: str, which: int) -> None:
        """Somebody else uses an order's id, or that of a part of it, for something of their own."""
        line = {"sku": "A", "quantity": 1, "unit_price": 1}
        theirs: Any = {"user_id": "ada", "currency": "GBP", "lines": [line]}
        match which % 9:
            case 0:
                self.world.send(command(order_id, "CreateOrder", **theirs, confirm=True))
            case 1:
                sku = SKUS[which // 6 % len(SKUS)]
                self.world.send(command(sku, "ReserveStock", reservation_id=order_id, quantity=1))
            case 2:
                paid: Any = {"order_id": order_id, "amount": 5, "currency": "GBP"}
                self.world.send(command(order_id, "RequestPayment", **paid))
            case part if part < 6:
                # The same order each time, so that its client repeats it and reuses no id.
                kind = COORDINATIONS[part % 2]
                suffix = PARTS[part - 3].suffix
                paying = {"payment_token": "tok_approve", "coordination": kind}
                self.world.place(f"{order_id}{suffix}", **theirs, **paying)
            case part:
                self._begin_part(order_id, PARTS[part - 6], {**theirs, "payment_token": "tok_ok"})

    def _begin_part(self, order_id: str, part: Part, theirs: dict[str, Any]) -> None:
        """Somebody begins a part of an order by themselves: of their own order, or of this one's input."""
        placed = self.sagas().get(order_id)
        given = [msgspec.json.decode(placed.input)] if placed is not None else []
        begin = [{"saga": part.saga, "input": each} for each in (theirs, *given)]
        for each in begin:
            self.world.send(command(f"{order_id}{part.suffix}", "StartSaga", **each))

    def _steal(self, order_id: str, which: int) -> None:
        """Somebody else gives a command of theirs an id that the pipeline might have derived."""
        nobody: Any = {"only_if_made_by": "nobody"}
        stolen = (
            (order_id, "RecordAnswer", f"timer.{which // 5 % 4}"),
            (order_id, "RequestRefund", f"{order_id}.capture"),
            (order_id, "RequestRefund", f"{order_id}.processPayment.0A"),
            (order_id, "CancelOrder", f"{order_id}.createOrder.0A"),
            ("A", "ReleaseReservation", f"{order_id}.reserveInventory.0A"),
        )
        data: dict[str, dict[str, Any]] = {
            "RecordAnswer": {"token": "nonsense", "type": "X", "accepted": True},
            "RequestRefund": {"reason": "x", **nobody},
            "CancelOrder": {"reason": "x", **nobody},
            "ReleaseReservation": {"reservation_id": order_id, **nobody},
        }
        key, kind, command_id = stolen[which % len(stolen)]
        self.world.send(command(key, kind, command_id=command_id, **data[kind]))

    def _refuse(self, kind: str) -> None:
        self.world.refusing.add(kind)
        if kind in GOING_BACK:
            self.hindered |= set(self.ids)

    def _discard(self, which: int) -> None:
        """An operator gives up what a saga had sent and will hear of: it asks again, or goes back."""
        held = [h for h in self.world.held() if decode_command(h.command.value).type in SENT]
        if held:
            one = held[which % len(held)]
            about = one.aggregate, one.aggregate_id, "DiscardParked", one.offset
            self.world.send(parking_order(*about))

    def _lose(self, place: Place) -> None:
        """Loses what would be asked for again.

        Nothing repeats a client's command, a reaction, or what the payments' outbox sends after a
        refund; and that a refund has arrived is told once.
        """
        asked = decode_command(self.world.queues[place][0].value or b"")
        answer = msgspec.json.decode(asked.data) if asked.type == "RecordAnswer" else None
        token = parse_token(answer["token"]) if answer else None
        kind = answer["type"] if answer else asked.type
        undoing = token.undo if token else kind in UNDOING
        charged = token and not undoing and kind in ("CapturePayment", "FailPayment")
        refund = token and undoing and token.step == PROCESS_PAYMENT.name
        if refund or not (charged or kind in SENT):
            return
        self.world.lose(place)
        if undoing:
            saga_id = place[1].decode() if answer else asked.command_id.partition(".")[0]
            self.hindered.add(saga_id.partition(":")[0])

    def end(self) -> Counter[SagaStatus]:
        """Goes on, losing nothing, until nothing is to be done; how the orders ended by themselves."""
        drain(self.world)
        if any(record.topic.endswith(".parked") for record in self.world.log):
            self.hindered |= set(self.ids)  # what undoes may have had to wait behind a bug
        assert {saga_id.partition(":")[0] for saga_id in self.stuck()} <= self.hindered
        return Counter(saga.status for key, saga in self.sagas().items() if key in self.ids)

    def settle(self) -> None:
        """An operator tries again what is parked and what is stuck, now that everything works."""
        self.world.broken.clear()
        self.world.refusing.clear()
        self.world.gateway.mend()
        self.world.settle_held()
        drain(self.world)
        assert not self.world.held()
        for saga_id in self.stuck():
            self.world.send(command(saga_id, "RetrySaga", by="ann"))
        drain(self.world)


def opened(chosen: list[dict[str, Any]]) -> Shop:
    """A shop with little stock, and these orders under way."""
    world = World()
    world.send(command("ada", "RegisterUser", name="Ada"))
    world.send(command("gone", "RegisterUser", name="Bob"))
    world.send(command("gone", "DeactivateUser", reason="left"))
    for sku in SKUS:
        world.send(command(sku, "RegisterItem", description="item", opening_stock=STOCK))
    drain(world)
    shop = Shop(world, tuple(f"o-{number}" for number in range(len(chosen))))
    for order_id, order in zip(shop.ids, chosen, strict=True):
        place(shop, order_id, order)
        if order["payment_token"] == "tok_refund_down":
            shop.hindered.add(order_id)
    return shop


def place(shop: Shop, order_id: str, order: dict[str, Any]) -> None:
    lines = [
        {"sku": sku, "quantity": 1, "unit_price": order["unit_price"]} for sku in order["skus"]
    ]
    shop.world.place(
        order_id,
        user_id=order["user_id"],
        currency="GBP",
        lines=lines,
        payment_token=order["payment_token"],
        coordination=order["coordination"],
    )


def run(
    chosen: list[dict[str, Any]], done: list[tuple[str, int]], *, mended: bool = True
) -> Counter[SagaStatus]:
    """Orders with all of this happening to them, to their ends; each law holds then. ``mended``: bugs do
    not stay until an operator comes.
    """
    shop = opened(chosen)
    for what, which in done:
        shop.move(what, which)
    if mended:
        shop.world.broken.clear()
        shop.world.refusing.clear()
    ends = shop.end()
    shop.settle()
    assert {saga.status for saga in shop.sagas().values()} <= ENDED
    assert not shop.world.busy()
    check_laws(shop.world)
    return ends


@settings(max_examples=200, deadline=None)
@given(orders, moves(SCHEDULING))
def test_every_order_ends_well_or_is_undone_whatever_the_order_of_things(
    chosen: list[dict[str, Any]], done: list[tuple[str, int]]
) -> None:
    for end in run(chosen, done):
        event(end)


@settings(max_examples=300, deadline=None)
@given(orders, moves(MEDDLING))
def test_nobodys_object_is_touched_by_the_saga_of_another_of_the_same_id(
    chosen: list[dict[str, Any]], done: list[tuple[str, int]]
) -> None:
    for end in run(chosen, done):
        event(end)


@settings(max_examples=400, deadline=None)
@given(orders, moves(FAULTS), st.booleans())
def test_lost_messages_and_bugs_leave_nothing_held_once_undoing_gets_through(
    chosen: list[dict[str, Any]], done: list[tuple[str, int]], mended: bool
) -> None:
    for end in run(chosen, done, mended=mended):
        event(end)


def test_orders_come_to_every_end_there_is() -> None:
    ends: Counter[SagaStatus] = Counter()

    @seed(4)
    @settings(max_examples=150, deadline=None, database=None)
    @given(orders, moves(FAULTS), st.booleans())
    def sample(chosen: list[dict[str, Any]], done: list[tuple[str, int]], mended: bool) -> None:
        ends.update(run(chosen, done, mended=mended))

    sample()
    # Those whose own command waits for an operator stand where they stood.
    assert set(ends) >= ENDED | {SagaStatus.NEEDS_OPERATOR}


@pytest.mark.parametrize("chance_seed", range(5))
def test_an_sku_that_nearly_all_orders_want_is_sold_to_the_last_piece_and_not_beyond(
    chance_seed: int,
) -> None:
    chance = random.Random(chance_seed)
    kinds = (*("go",) * 20, "twice", "together", "abort", "again", "crash")
    wanted = ["A"] * 36 + ["B"] * 4
    chance.shuffle(wanted)
    approved = {"user_id": "ada", "unit_price": 100, "payment_token": "tok_approve"}
    shop = opened(
        [
            {**approved, "skus": [sku], "coordination": chance.choice(COORDINATIONS)}
            for sku in wanted
        ]
    )
    for _ in range(1_500):
        shop.move(chance.choice(kinds), chance.randrange(10_000))
    assert shop.end()[SagaStatus.COMPLETED] == STOCK + 4
    levels = shop.world.states("inventory", StockLevel)
    assert (levels["A"].available, levels["B"].available) == (0, STOCK - 4)
    check_laws(shop.world)
