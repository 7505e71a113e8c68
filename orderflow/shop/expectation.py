"""What the views must say after a generated shop: plain sums over the plan, in one pass.

Independent on purpose: nothing here asks ``decide`` or ``evolve``, or reads an event. What is
expected to be refused, and what is a repetition, counts for nothing; the rest is added up by its
meaning.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from commands.inventory import (
    AdjustStock,
    CommitReservation,
    ReceiveStock,
    RegisterItem,
    ReleaseReservation,
    ReserveStock,
)
from commands.order import CancelOrder, ConfirmOrder, CreateOrder, DeliverOrder, ShipOrder
from commands.user import RegisterUser
from orderflow.shop.planned import ExpectedOrder, ExpectedStock, ExpectedViews, PlannedCommand

STATUS_AFTER: Final[dict[type, str]] = {
    ConfirmOrder: "confirmed",
    CancelOrder: "cancelled",
    ShipOrder: "shipped",
    DeliverOrder: "delivered",
}


def expect(commands: Iterable[PlannedCommand]) -> ExpectedViews:
    """The views after all these commands."""
    tally = Tally()
    for command in commands:
        tally.add(command)
    return tally.views


class Tally:
    """Adds up a plan while it is sent, so that nobody has to keep it."""

    def __init__(self) -> None:
        self.views = ExpectedViews()
        self.commands = 0
        self._held: dict[tuple[str, str], int] = {}

    def watch(self, commands: Iterable[PlannedCommand]) -> Iterator[PlannedCommand]:
        """Hands the commands on, each after it was added."""
        for command in commands:
            self.add(command)
            yield command

    def add(self, command: PlannedCommand) -> None:
        """One more command of the plan."""
        self.commands += 1
        if command.expected is not None:
            self.views.rejections[command.expected] += 1
        elif not command.repeated:
            self._accepted(command)

    def _accepted(self, command: PlannedCommand) -> None:
        key = command.aggregate_id
        match command.data:
            case RegisterUser():
                self.views.users.add(key)
            case CreateOrder() as order:
                self.views.orders[key] = ExpectedOrder(
                    user_id=order.user_id,
                    currency=order.currency,
                    total=sum(line.quantity * line.unit_price for line in order.lines),
                    lines=len(order.lines),
                    created_at_ms=command.occurred_at_ms,
                )
            case ConfirmOrder() | CancelOrder() | ShipOrder() | DeliverOrder() as move:
                self.views.orders[key].status = STATUS_AFTER[type(move)]
            case _:
                self._stock_moved(key, command)

    def _stock_moved(self, sku: str, command: PlannedCommand) -> None:
        match command.data:
            case RegisterItem() as item:
                self.views.stock[sku] = ExpectedStock(on_hand=item.opening_stock)
            case ReceiveStock() as received:
                self.views.stock[sku].on_hand += received.quantity
            case AdjustStock() as adjusted:
                self.views.stock[sku].on_hand += adjusted.delta
            case ReserveStock() as reserve:
                self._held[sku, reserve.reservation_id] = reserve.quantity
                self.views.stock[sku].reserved += reserve.quantity
            case ReleaseReservation() as release:
                self.views.stock[sku].reserved -= self._held.pop((sku, release.reservation_id))
            case CommitReservation() as commit:
                pieces = self._held.pop((sku, commit.reservation_id))
                self.views.stock[sku].reserved -= pieces
                self.views.stock[sku].on_hand -= pieces
            case _:
                pass  # deactivations and payments change no view that is checked
