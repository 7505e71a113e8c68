"""Places the orders of an Online Retail file through `AsyncOrderClient`, many at a time.

Who pays with a card that is declined follows from the order's id, so a file that is placed again
asks for the same, and gets the same answers.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, assert_never

from commands.inventory import RegisterItem
from commands.user import RegisterUser
from orderflow.placing import AsyncOrderClient, NotPlaced, Placed, Placement, StillRunning
from orderflow.shop.online_retail import CURRENCY, LOW_STOCK, command_id, name_of
from orderflow.shop.planned import PlannedCommand
from orderflow.shop.retail_orders import RetailOrder, RetailOrders
from runtime.settings import Settings
from sagas.create_order import Coordination

APPROVED: Final = "tok_approve"
DECLINED: Final = "tok_decline"


@dataclass(frozen=True, slots=True)
class Way:
    """How a file is placed. ``opening_stock``: pieces of each SKU; ``declined``: share of the orders whose
    payment is declined, 0 to 1; ``timeout``: seconds for each answer.
    """

    opening_stock: int
    declined: float
    coordination: Coordination
    at_once: int
    timeout: float


@dataclass(slots=True)
class Endings:
    """How orders ended, by their ids; ``not_placed`` counts by code."""

    placements: dict[str, Placement] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)
    not_placed: Counter[str] = field(default_factory=Counter)
    still_running: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        """Orders that were answered."""
        return len(self.placements)

    @property
    def rate(self) -> float:
        """Orders ended a second."""
        return self.ended / self.seconds if self.seconds else 0.0

    def add(self, placement: Placement, seconds: float) -> None:
        """One more answer of ``place_order``, so many seconds after the first was asked."""
        self.placements[placement.order_id] = placement
        self.seconds = seconds
        match placement:
            case Placed(order_id):
                self.placed.add(order_id)
            case NotPlaced(code=code):
                self.not_placed[code] += 1
            case StillRunning():
                self.still_running += 1
            case _:
                assert_never(placement)

    def __str__(self) -> str:
        codes = "".join(f", {count:,} {code}" for code, count in sorted(self.not_placed.items()))
        open_ = f", {self.still_running:,} still running" if self.still_running else ""
        return f"{self.ended:,} ended: {len(self.placed):,} placed{codes}{open_}"


def is_declined(order_id: str, share: float) -> bool:
    """Whether the order belongs to the share whose payment is declined; one of gifts has no payment."""
    return int.from_bytes(sha256(order_id.encode()).digest()[:8]) < share * 2**64


def registrations(orders: RetailOrders, way: Way) -> Iterator[PlannedCommand]:
    """Every user who orders, and every SKU with so many pieces."""
    for user_id in orders.users:
        user = RegisterUser(name=name_of(user_id))
        yield PlannedCommand("user", user_id, "RegisterUser", user, command_id("user", user_id))
    for sku, description in orders.descriptions.items():
        item = RegisterItem(
            description=description, low_stock_threshold=LOW_STOCK, opening_stock=way.opening_stock
        )
        yield PlannedCommand("inventory", sku, "RegisterItem", item, command_id("item", sku))


def place_all(
    settings: Settings,
    orders: Sequence[RetailOrder],
    way: Way,
    on_end: Callable[[Endings], None] | None = None,
) -> Endings:
    """Begins the orders in their order, ``way.at_once`` under way. Raises NotDelivered."""
    return asyncio.run(_place_all(settings, orders, way, on_end or (lambda _endings: None)))


async def _place_all(
    settings: Settings,
    orders: Sequence[RetailOrder],
    way: Way,
    on_end: Callable[[Endings], None],
) -> Endings:
    endings = Endings()
    waiting = iter(orders)
    async with AsyncOrderClient(settings) as client:
        began = time.monotonic()

        async def place_one_after_the_other() -> None:
            for order in waiting:  # the same iterator for all: who is free takes the next
                placement = await _place(client, order, way)
                endings.add(placement, time.monotonic() - began)
                on_end(endings)

        await asyncio.gather(*(place_one_after_the_other() for _ in range(way.at_once)))
    return endings


async def _place(client: AsyncOrderClient, order: RetailOrder, way: Way) -> Placement:
    return await client.place_order(
        order.order_id,
        timeout=way.timeout,
        user_id=order.user_id,
        lines=[line.model_dump() for line in order.lines],
        currency=CURRENCY,
        payment_token=DECLINED if is_declined(order.order_id, way.declined) else APPROVED,
        coordination=way.coordination,
    )
