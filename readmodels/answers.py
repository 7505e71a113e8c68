"""What the queries answer: frozen values. Times are epoch milliseconds, UTC; amounts are minor units."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from schemas.decoding import Int64
from schemas.order import OrderLine


class OrderAnswer(msgspec.Struct, frozen=True):
    """An order as of ``version``."""

    order_id: str
    version: int
    status: str
    user_id: str
    currency: str
    total: int
    created_at_ms: int
    updated_at_ms: int
    lines: tuple[OrderLine, ...]


class OrderPage(msgspec.Struct, frozen=True):
    """Some of a user's orders, newest first. ``next``: the cursor for those after them; None: that is all."""

    orders: tuple[OrderAnswer, ...]
    next: str | None = None


class Profile(msgspec.Struct, frozen=True):
    """Who a user is, as of ``version``."""

    version: int
    status: str
    name: str
    email: str | None
    registered_at_ms: int
    updated_at_ms: int


class UserAnswer(msgspec.Struct, frozen=True):
    """A user and what they ordered. The two are views of their own and may differ in how far they are.

    ``profile`` None: orders name the user, but nobody registered them (yet). ``spent`` leaves out what
    was cancelled.
    """

    user_id: str
    profile: Profile | None
    orders: int
    by_status: Mapping[str, int]
    spent: Mapping[str, int]


class StockAnswer(msgspec.Struct, frozen=True):
    """The stock of a SKU as of ``version``; pieces."""

    sku: str
    version: int
    description: str
    on_hand: int
    reserved: int
    available: int
    threshold: int
    updated_at_ms: int

    @property
    def low(self) -> bool:
        """Whether it is time to order more."""
        return self.available <= self.threshold


class SagaStepAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of a saga that has begun: how many commands it sends, and what became of them.

    ``waiting``: of the others nobody knows (yet). ``undo_commands`` and what follows are of its undoing.
    ``code``, ``message``: the newest refusal.
    """

    name: str
    status: str
    commands: Int64
    accepted: Int64
    refused: Int64
    attempt: Int64
    started_at_ms: Int64
    ended_at_ms: Int64 | None = None
    waiting: Int64 = 0
    code: str | None = None
    message: str | None = None
    undo_commands: Int64 = 0
    undone: Int64 = 0
    undo_refused: Int64 = 0
    undo_attempt: Int64 = 0
    undo_started_at_ms: Int64 | None = None
    undo_ended_at_ms: Int64 | None = None


class SagaAnswer(msgspec.Struct, frozen=True):
    """A saga as of ``version``. ``code``, ``message``: why it was not completed. ``wakes_at_ms``: when it
    goes on by itself. ``undone``: steps that were undone, in this order.
    """

    saga_id: str
    version: int
    saga: str
    status: str
    correlation_id: str
    started_at_ms: int
    updated_at_ms: int
    steps: tuple[SagaStepAnswer, ...]
    undone: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None
    wakes_at_ms: int | None = None
    resolved_by: str | None = None


class TopUser(msgspec.Struct, frozen=True):
    """A place in a ranking; ``value`` is the number of orders or the exact amount."""

    user_id: str
    value: int


class ViewStatus(msgspec.Struct, frozen=True):
    """Which generation of a view is live, and the next offset it reads of each partition."""

    view: str
    generation: int
    positions: Mapping[str, int]


class PartitionLag(msgspec.Struct, frozen=True):
    """How far a view is behind the end of a partition."""

    view: str
    topic: str
    partition: int
    position: int
    end: int

    @property
    def lag(self) -> int:
        """Offsets, not records: markers of transactions count until the projector has passed them."""
        return max(0, self.end - self.position)
