"""The generated shop itself: what it knows, and the stories its orders live through.

A story is a generator of commands. What it keeps of the shop (stock, statuses) it changes right
before it hands out the command that makes it so; then others may be told, and it looks again.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

from commands.aggregate import Command
from commands.inventory import (
    AdjustStock,
    CommitReservation,
    ReceiveStock,
    RegisterItem,
    ReleaseReservation,
    ReserveStock,
)
from commands.order import CancelOrder, ConfirmOrder, CreateOrder, DeliverOrder, Line, ShipOrder
from commands.payment import CapturePayment, FailPayment, RefundPayment, RequestPayment
from commands.user import DeactivateUser, RegisterUser
from orderflow.shop.planned import PlannedCommand
from sagas import by_command
from schemas.rejections import Code

CURRENCY: Final = "GBP"
MAX_LINES: Final = 4
MAX_PIECES: Final = 5

DELIVERY: Final = 500
"""Pieces that a supplier brings when a SKU runs out; far more than one order can want."""

REMEMBERED: Final = 500
"""Commands, orders and payments that mischief can come back to; bounds the memory of a long run."""

FATES: Final = {
    "delivered": 50,
    "shipped": 12,
    "confirmed": 8,
    "waiting": 6,  # reserved and not paid: the reservation stays open
    "payment_failed": 8,
    "cancelled": 8,
    "returned": 5,
    "partly_refunded": 3,
}
"""How often an order ends in which way, of a hundred."""

ADJECTIVES: Final = ("White", "Red", "Vintage", "Hanging", "Small", "Painted", "Glass", "Wooden")
NOUNS: Final = ("Lantern", "Heart", "Mug", "Clock", "Teapot", "Candle", "Basket", "Frame")
NAMES: Final = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Frances", "Tony", "Leslie")


@dataclass(frozen=True, slots=True)
class ShopPlan:
    """What to generate. ``namespace`` begins every id, so that several shops fit on the same
    topics.

    ``bad_share``: part of all commands that are refused or repeated, 0 up to (not including) 1.
    ``zipf``: exponent of the popularity; at 1.0 the most popular SKU sells twice as often as the
    second.
    """

    orders: int = 1_000
    users: int = 50
    skus: int = 40
    bad_share: float = 0.05
    seed: int = 7
    opening_stock: int = 200
    zipf: float = 1.0
    open_orders: int = 32
    namespace: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a plan that no shop can follow."""
        if min(self.users, self.skus, self.open_orders) < 1 or self.orders < 0:
            raise ValueError("a shop needs at least 1 user, 1 SKU, 1 open order and 0 orders")
        if not 0 <= self.bad_share < 1:
            raise ValueError(f"bad_share is {self.bad_share}; it must be 0 or more and below 1")


class Shop:
    """What the generator has to know to go on: stock, statuses, and what it sent last."""

    def __init__(self, plan: ShopPlan) -> None:
        self.plan = plan
        self.random = Random(plan.seed)
        self.users = [self.name("user", n) for n in range(1, plan.users + 1)]
        self.skus = [self.name("sku", n) for n in range(1, plan.skus + 1)]
        self.available: dict[str, int] = {}
        self.order_status: dict[str, str] = {}
        self.captured: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)
        self.recent: deque[PlannedCommand] = deque(maxlen=REMEMBERED)
        self._numbered = 0
        self._prices = {sku: self.random.randrange(50, 5_000) for sku in self.skus}
        self._popularity = list(accumulate(1 / rank**plan.zipf for rank in range(1, plan.skus + 1)))

    def name(self, kind: str, number: int) -> str:
        """Id of the so-many-eth thing of a kind."""
        return f"{self.plan.namespace}{kind}-{number}"

    def command_id(self) -> str:
        """The next unused command id."""
        self._numbered += 1
        return f"{self.plan.namespace}shop-{self.plan.seed}-{self._numbered}"

    def send(
        self, aggregate_id: str, data: Command, expected: Code | None = None
    ) -> PlannedCommand:
        """A command under a fresh id; its aggregate is the one of the table."""
        kind = type(data).__name__
        aggregate = by_command[kind].name
        return PlannedCommand(aggregate, aggregate_id, kind, data, self.command_id(), expected)

    def opening(self) -> Iterator[PlannedCommand]:
        """Users and items, before the first order."""
        for user in self.users:
            name = self.random.choice(NAMES)
            yield self.send(user, RegisterUser(name=name, email=f"{user}@example.com"))
        opening = self.plan.opening_stock
        for sku in self.skus:
            what = f"{self.random.choice(ADJECTIVES)} {self.random.choice(NOUNS)}"
            self.available[sku] = opening
            yield self.send(
                sku,
                RegisterItem(description=what, low_stock_threshold=20, opening_stock=opening),
            )

    def closing(self) -> Iterator[PlannedCommand]:
        """Stocktaking: one SKU in ten has lost a piece; one user in fifty leaves."""
        for sku in self.skus[::10]:
            if self.available[sku] > 0:
                self.available[sku] -= 1
                yield self.send(sku, AdjustStock(delta=-1, reason="breakage"))
        for user in self.users[49::50]:
            yield self.send(user, DeactivateUser(reason="account closed"))

    def order(self, number: int) -> Iterator[PlannedCommand]:
        """The life of one order, to the fate that is drawn for it."""
        order_id, payment_id = self.name("order", number), self.name("payment", number)
        lines = self._basket()
        fate = self.random.choices(list(FATES), list(FATES.values()))[0]
        user = self.random.choice(self.users)
        create = CreateOrder(user_id=user, currency=CURRENCY, lines=lines)
        yield self._move(order_id, create, "created")
        for line in lines:
            yield from self._reserve(line.sku, order_id, line.quantity)
        if fate == "waiting":
            return
        if fate == "cancelled":
            yield from self._cancel(order_id, lines, "changed my mind")
            return
        total = sum(line.quantity * line.unit_price for line in lines)
        yield self.send(
            payment_id, RequestPayment(order_id=order_id, amount=total, currency=CURRENCY)
        )
        if fate == "payment_failed":
            yield self.send(payment_id, FailPayment(reason="card declined"))
            yield from self._cancel(order_id, lines, "payment failed")
            return
        if fate in ("confirmed", "shipped", "delivered"):
            self.captured.append((payment_id, total))
        yield self.send(payment_id, CapturePayment(amount=total, reference=f"gw-{payment_id}"))
        yield from self._fulfil(order_id, lines, fate)
        yield from self._give_back(order_id, payment_id, lines, fate)

    def _basket(self) -> tuple[Line, ...]:
        wanted = self.random.randint(1, MAX_LINES)
        picked = self.random.choices(self.skus, cum_weights=self._popularity, k=wanted)
        return tuple(
            Line(
                sku=sku,
                quantity=self.random.randint(1, MAX_PIECES),
                unit_price=self._prices[sku],
            )
            for sku in dict.fromkeys(picked)
        )

    def _reserve(self, sku: str, order_id: str, quantity: int) -> Iterator[PlannedCommand]:
        # Asked again after every delivery: other stories reserve while it is on its way.
        while self.available[sku] < quantity:
            self.available[sku] += DELIVERY
            yield self.send(sku, ReceiveStock(quantity=DELIVERY, reference="supplier"))
        self.available[sku] -= quantity
        yield self.send(sku, ReserveStock(reservation_id=order_id, quantity=quantity))

    def _cancel(
        self, order_id: str, lines: tuple[Line, ...], reason: str
    ) -> Iterator[PlannedCommand]:
        yield self._move(order_id, CancelOrder(reason=reason), "cancelled")
        for line in lines:
            self.available[line.sku] += line.quantity
            yield self.send(line.sku, ReleaseReservation(reservation_id=order_id))

    def _fulfil(
        self, order_id: str, lines: tuple[Line, ...], fate: str
    ) -> Iterator[PlannedCommand]:
        yield self._move(order_id, ConfirmOrder(), "confirmed")
        if fate == "confirmed":
            return
        for line in lines:
            yield self.send(line.sku, CommitReservation(reservation_id=order_id))
        yield self._move(order_id, ShipOrder(tracking=f"track-{order_id}"), "shipped")
        if fate != "shipped":
            yield self._move(order_id, DeliverOrder(), "delivered")

    def _give_back(
        self, order_id: str, payment_id: str, lines: tuple[Line, ...], fate: str
    ) -> Iterator[PlannedCommand]:
        """Everything comes back, or the customer gets the money for one piece."""
        if fate == "returned":
            for line in lines:
                self.available[line.sku] += line.quantity
                yield self.send(line.sku, ReceiveStock(quantity=line.quantity, reference=order_id))
            yield self.send(payment_id, RefundPayment(reason="returned"))
        elif fate == "partly_refunded":
            refund = RefundPayment(amount=lines[0].unit_price, reason="one piece was broken")
            yield self.send(payment_id, refund)

    def _move(self, order_id: str, data: Command, status: str) -> PlannedCommand:
        self.order_status[order_id] = status
        while len(self.order_status) > REMEMBERED:
            del self.order_status[next(iter(self.order_status))]
        return self.send(order_id, data)
