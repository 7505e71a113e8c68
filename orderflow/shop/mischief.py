"""The bad commands of the generated shop, each with the code it has to be refused with.

None of them depends on how commands of different aggregates fall in time: an order is told to do
what it can never do from where it stands in its own stream, a SKU to give more than its own stream
left it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from commands.inventory import CommitReservation, ReserveStock
from commands.order import CancelOrder, ConfirmOrder, DeliverOrder
from commands.payment import RefundPayment
from commands.user import DeactivateUser, RegisterUser
from orderflow.shop.planned import PlannedCommand
from orderflow.shop.stories import Shop
from schemas.money import MAX_QUANTITY
from schemas.records import encode
from schemas.rejections import Code

NO_SUCH_VERSION: Final = 1_000_000_000
"""A version at which no aggregate of the shop can stand."""

IMPOSSIBLE: Final = {
    "created": DeliverOrder(),
    "confirmed": ConfirmOrder(),
    "shipped": CancelOrder(reason="too late"),
    "delivered": CancelOrder(reason="too late"),
    "cancelled": ConfirmOrder(),
}
"""For each status, a move that an order can never make from there."""


class Mischief:
    """Bad commands, one kind after the other in random order; needs what the shop sent so far."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._kinds: tuple[Callable[[], PlannedCommand | None], ...] = (
            self._repeated,
            self._reused_id,
            self._unknown_user,
            self._registered_twice,
            self._over_reserved,
            self._no_reservation,
            self._negative_quantity,
            self._unknown_field,
            self._unknown_type,
            self._impossible_move,
            self._unknown_order,
            self._refunded_too_much,
            self._stale_version,
        )

    def next(self) -> PlannedCommand:
        """One bad command; a kind that has nothing to work on yet is passed over."""
        kinds = self._shop.random.sample(self._kinds, len(self._kinds))
        for kind in kinds:
            command = kind()
            if command is not None:
                return command
        raise AssertionError("the unknown user needs nothing")

    def _repeated(self) -> PlannedCommand | None:
        """A command that was sent before, the same to the byte."""
        before = self._some_recent()
        return None if before is None else replace(before, repeated=True)

    def _reused_id(self) -> PlannedCommand | None:
        """The id of a command that was sent before, with other data."""
        before = self._some_recent()
        if before is None:
            return None
        other = encode({"note": f"not what {before.command_id} was"})
        return replace(before, data=other, expected=Code.COMMAND_ID_REUSED)

    def _unknown_user(self) -> PlannedCommand:
        nobody = self._shop.name("nobody", self._shop.random.randrange(1, 1_000))
        return self._shop.send(nobody, DeactivateUser(reason="fraud"), Code.USER_NOT_FOUND)

    def _registered_twice(self) -> PlannedCommand | None:
        if not self._shop.available:  # items are registered after all users
            return None
        user = self._shop.random.choice(self._shop.users)
        again = RegisterUser(name="Somebody Else")
        return self._shop.send(user, again, Code.USER_ALREADY_REGISTERED)

    def _over_reserved(self) -> PlannedCommand | None:
        sku = self._some_sku()
        if sku is None:
            return None
        wanted = min(self._shop.available[sku] + self._shop.random.randint(1, 50), MAX_QUANTITY)
        if wanted <= self._shop.available[sku]:
            return None
        greedy = ReserveStock(reservation_id=f"greedy-{sku}", quantity=wanted)
        return self._shop.send(sku, greedy, Code.INSUFFICIENT_STOCK)

    def _no_reservation(self) -> PlannedCommand | None:
        sku = self._some_sku()
        commit = CommitReservation(reservation_id="never-made")
        return None if sku is None else self._shop.send(sku, commit, Code.RESERVATION_NOT_FOUND)

    def _negative_quantity(self) -> PlannedCommand | None:
        sku = self._some_sku()
        data = {"reservation_id": "negative", "quantity": -self._shop.random.randint(0, 9)}
        return (
            None
            if sku is None
            else self._raw("inventory", sku, "ReserveStock", data, Code.INVALID_DATA)
        )

    def _unknown_field(self) -> PlannedCommand:
        user = self._shop.random.choice(self._shop.users)
        data = {"reason": "moved", "favourite_colour": "green"}
        return self._raw("user", user, "DeactivateUser", data, Code.INVALID_DATA)

    def _unknown_type(self) -> PlannedCommand:
        user = self._shop.random.choice(self._shop.users)
        return self._raw("user", user, "PromoteUser", {"to": "admin"}, Code.UNKNOWN_TYPE)

    def _impossible_move(self) -> PlannedCommand | None:
        if not self._shop.order_status:
            return None
        order_id, status = self._shop.random.choice(list(self._shop.order_status.items()))
        return self._shop.send(order_id, IMPOSSIBLE[status], Code.INVALID_TRANSITION)

    def _unknown_order(self) -> PlannedCommand:
        nothing = self._shop.name("no-order", self._shop.random.randrange(1, 1_000))
        return self._shop.send(nothing, ConfirmOrder(), Code.ORDER_NOT_FOUND)

    def _refunded_too_much(self) -> PlannedCommand | None:
        if not self._shop.captured:
            return None
        payment_id, captured = self._shop.random.choice(self._shop.captured)
        refund = RefundPayment(amount=captured + 1)
        return self._shop.send(payment_id, refund, Code.REFUND_EXCEEDS_CAPTURE)

    def _stale_version(self) -> PlannedCommand | None:
        sku = self._some_sku()
        if sku is None:
            return None
        reserve = ReserveStock(reservation_id="stale", quantity=1)
        command = self._shop.send(sku, reserve, Code.VERSION_CONFLICT)
        return replace(command, expected_version=NO_SUCH_VERSION)

    def _some_recent(self) -> PlannedCommand | None:
        return self._shop.random.choice(self._shop.recent) if self._shop.recent else None

    def _some_sku(self) -> str | None:
        """A SKU that is registered by now; None before the first."""
        return self._shop.random.choice(list(self._shop.available) or [None])

    def _raw(
        self, aggregate: str, aggregate_id: str, kind: str, data: object, expected: Code
    ) -> PlannedCommand:
        return PlannedCommand(
            aggregate, aggregate_id, kind, encode(data), self._shop.command_id(), expected
        )
