"""What the views have to say, computed in the most straightforward way: the oracle of the tests.

A fold over records in the order of their partitions, without Redis, batches, positions or Lua. Slow and
obvious on purpose. `answers` has the same shape whether it is asked of this or of `Queries`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from readmodels.answers import OrderAnswer, Profile, SagaAnswer, StockAnswer, UserAnswer
from readmodels.records import Headers, Unreadable, read
from readmodels.sagas import step_answer
from schemas.decoding import decoder
from schemas.inventory import StockLevel
from schemas.order import OrderState, OrderStatus
from schemas.saga import SagaState
from schemas.upcasting import Reader
from schemas.user import UserState, UserStatus


@dataclass
class _Table:
    """Newest version and state of each aggregate; states None are deletions that are remembered."""

    rows: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)

    def add(self, identity: str, version: int | None, state: bytes | None) -> None:
        if version is None:
            self.rows.pop(identity, None)
            return
        known, _ = self.rows.get(identity, (0, None))
        if version > known or (version == known and state is None):
            self.rows[identity] = (version, state)

    def living(self) -> dict[str, tuple[int, bytes]]:
        return {k: (v, s) for k, (v, s) in sorted(self.rows.items()) if s is not None}


@dataclass
class Reference:
    """Feed it records with `record`, then ask."""

    tables: dict[str, _Table] = field(default_factory=lambda: defaultdict(_Table))

    def record(
        self, aggregate: str, key: bytes | None, value: bytes | None, headers: Headers = None
    ) -> None:
        """One record of an events topic; unreadable ones change nothing."""
        shape: type[Any] = {
            "order": OrderState,
            "inventory": StockLevel,
            "user": UserState,
            "saga": SagaState,
        }[aggregate]

        states: Reader[Any] = Reader(shape)

        def check(_identity: str, _version: int, state: bytes) -> bytes:
            decoder(shape)(state)
            return state

        try:
            change = read(key, value, headers, states, check)
        except Unreadable:
            return
        if change is not None:
            self.tables[aggregate].add(change.id, change.version, change.row)

    def orders(self) -> dict[str, OrderAnswer]:
        """All orders by id."""
        found: dict[str, OrderAnswer] = {}
        for order_id, (version, state) in self.tables["order"].living().items():
            order = decoder(OrderState)(state)
            found[order_id] = OrderAnswer(
                order_id,
                version,
                order.status.value,
                order.user_id,
                order.currency,
                order.total,
                order.created_at_ms,
                order.updated_at_ms,
                order.lines,
            )
        return found

    def stock(self) -> dict[str, StockAnswer]:
        """All SKUs."""
        found: dict[str, StockAnswer] = {}
        for sku, (version, state) in self.tables["inventory"].living().items():
            level = decoder(StockLevel)(state)
            found[sku] = StockAnswer(
                sku,
                version,
                level.description,
                level.on_hand,
                level.reserved,
                level.available,
                level.low_stock_threshold,
                level.updated_at_ms,
            )
        return found

    def users(self) -> dict[str, UserAnswer]:
        """All users that are registered or have orders."""
        profiles: dict[str, Profile] = {}
        for user_id, (version, state) in self.tables["user"].living().items():
            user = decoder(UserState)(state)
            if user.status is UserStatus.FORGOTTEN:
                continue
            profiles[user_id] = Profile(
                version, user.status.value, user.name, user.email,
                user.registered_at_ms, user.updated_at_ms,
            )  # fmt: skip
        orders = list(self.orders().values())
        found: dict[str, UserAnswer] = {}
        for user_id in sorted({*profiles, *(order.user_id for order in orders)}):
            mine = [order for order in orders if order.user_id == user_id]
            found[user_id] = UserAnswer(
                user_id,
                profiles.get(user_id),
                len(mine),
                _sums((order.status, 1) for order in mine),
                _sums(
                    (order.currency, order.total)
                    for order in mine
                    if order.status != OrderStatus.CANCELLED
                ),
            )
        return found

    def sagas(self) -> dict[str, SagaAnswer]:
        """All sagas by id."""
        found: dict[str, SagaAnswer] = {}
        for saga_id, (version, state) in self.tables["saga"].living().items():
            saga = decoder(SagaState)(state)
            found[saga_id] = SagaAnswer(
                saga_id, version, saga.saga, saga.status.value, saga.correlation_id or saga_id,
                saga.started_at_ms, saga.updated_at_ms, tuple(map(step_answer, saga.steps)),
                saga.undone, saga.code, saga.message, saga.wakes_at_ms, saga.resolved_by,
            )  # fmt: skip
        return found

    def orders_of(self, user_id: str) -> list[str]:
        """Ids of a user's orders, newest first."""
        mine = [order for order in self.orders().values() if order.user_id == user_id]
        mine.sort(key=lambda order: (order.created_at_ms, order.order_id), reverse=True)
        return [order.order_id for order in mine]

    def low_stock(self) -> list[str]:
        """SKUs at or below their threshold, those with the fewest pieces first."""
        low = [level for level in self.stock().values() if level.low]
        return [level.sku for level in sorted(low, key=lambda level: (level.available, level.sku))]

    def top_users(self, by: str, currency: str) -> list[tuple[str, int]]:
        """Users with their number of orders, or with what they spent; the first ones first."""
        values = [
            (user.orders if by == "orders" else user.spent.get(currency, 0), user.user_id)
            for user in self.users().values()
        ]
        return [(user_id, value) for value, user_id in sorted(values, reverse=True) if value]


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for name, value in pairs:
        sums[name] += value
    return {name: value for name, value in sorted(sums.items()) if value}
