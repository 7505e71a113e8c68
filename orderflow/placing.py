"""One call that places an order across users, inventory, payments and orders, and says how it ended.

    with OrderClient(settings) as orders:
        placement = orders.place_order("o-1", user_id=..., lines=..., currency=..., payment_token=...)

Asked again with the same order id and contents: the same answer, and no second order.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from runtime.client import AsyncCommandClient, CommandClient, OutgoingCommand
from runtime.settings import Settings
from sagas import choreography, create_order
from sagas.create_order import Coordination
from schemas.ids import derived_id
from schemas.records import Outcome, encode
from schemas.saga import SagaEnd, SagaStatus
from schemas.topics import SAGA

DEFAULT_TIMEOUT_S: Final = 30.0
ASK_AGAIN_S: Final = 5.0
"""A saga processor that has taken over does not know who waits, so the question is repeated."""

SAGA_OF: Final[Mapping[Coordination, str]] = {
    "orchestration": create_order.SAGA.name,
    "choreography": choreography.ORDER_CREATE,
}
"""Coordination → the saga that is started."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The order is created and confirmed, its stock reserved, its payment taken."""

    order_id: str
    ended_at_ms: int


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """There is no order. ``status``: ``rejected`` (nothing was begun), ``failed`` (nothing had been
    done), ``compensated`` (the steps in ``undone`` were undone, in this order) or ``needs_operator``.
    """

    order_id: str
    status: str
    code: str
    message: str
    undone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StillRunning:
    """No end within the time. It goes on by itself; ``message`` says how to find it later."""

    order_id: str
    message: str


Placement = Placed | NotPlaced | StillRunning


def order_command(
    order_id: str,
    *,
    user_id: str,
    lines: Sequence[Mapping[str, Any]],
    currency: str,
    payment_token: str,
    coordination: Coordination = "orchestration",
    correlation_id: str | None = None,
) -> OutgoingCommand:
    """The command that starts it. ``lines``: sku, quantity, unit_price (minor units of ``currency``).

    Its id derives from the order's, so that the same again is recognised.
    """
    data: dict[str, Any] = {
        "saga": SAGA_OF[coordination],
        "input": {
            "user_id": user_id,
            "currency": currency,
            "lines": [dict(line) for line in lines],
            "payment_token": payment_token,
        },
    }
    if correlation_id is not None:
        data["correlation_id"] = correlation_id
    return OutgoingCommand(
        aggregate=SAGA,
        aggregate_id=order_id,
        type="StartSaga",
        data=encode(data),
        command_id=derived_id("place", order_id),
        correlation_id=correlation_id or order_id,
    )


class OrderClient:
    """Places orders, by any number of threads at once. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._client = CommandClient(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops; orders that are under way go on."""
        self._client.close()

    def place_order(
        self, order_id: str, *, timeout: float = DEFAULT_TIMEOUT_S, **order: Any
    ) -> Placement:
        """Places an order and waits for the end, at most ``timeout`` seconds.

        ``order``: as ``order_command``'s. Raises NotDelivered, CommandTooLarge.
        """
        command = order_command(order_id, **order)
        for outcome, end, pause in _questions(self._client, command, timeout):
            both: tuple[Future[Any], ...] = (outcome, end)
            wait(both, pause, FIRST_COMPLETED)
            if outcome.done() and outcome.result().accepted:
                wait((end,), pause)
            if (placement := _placement(order_id, outcome, end)) is not None:
                return placement
        return still_running(order_id, timeout)


class AsyncOrderClient:
    """The same for asyncio. Use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._client = AsyncCommandClient(settings)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def place_order(
        self, order_id: str, *, timeout: float = DEFAULT_TIMEOUT_S, **order: Any
    ) -> Placement:
        """As OrderClient.place_order."""
        command = order_command(order_id, **order)
        for outcome, end, pause in _questions(self._client.threaded, command, timeout):
            asked: list[asyncio.Future[Any]] = [
                asyncio.wrap_future(outcome),
                asyncio.wrap_future(end),
            ]
            await asyncio.wait(asked, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if outcome.done() and outcome.result().accepted:
                await asyncio.wait(asked[1:], timeout=pause)
            if (placement := _placement(order_id, outcome, end)) is not None:
                return placement
        return still_running(order_id, timeout)


def _questions(
    client: CommandClient, command: OutgoingCommand, timeout: float
) -> Iterator[tuple[Future[Outcome], Future[SagaEnd], float]]:
    """Asks, and asks again, until the time is up: outcome, end, and how long to wait for them."""
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            outcome, end = client.submit_and_follow(command)
            yield outcome, end, min(left, ASK_AGAIN_S)
    finally:
        client.forget(command)
        client.unfollow(command.aggregate_id)


def _placement(
    order_id: str, outcome: Future[Outcome], end: Future[SagaEnd]
) -> Placed | NotPlaced | None:
    """What has come, if it decides the matter."""
    if end.done():
        return ended(order_id, end.result())
    if outcome.done() and not outcome.result().accepted:
        return refused(order_id, outcome.result())
    return None


def ended(order_id: str, end: SagaEnd) -> Placed | NotPlaced:
    """What the end of its saga means for an order."""
    if end.status is SagaStatus.COMPLETED:
        return Placed(order_id, end.ended_at_ms)
    return NotPlaced(order_id, end.status.value, end.code or "", end.message or "", end.undone)


def refused(order_id: str, outcome: Outcome) -> NotPlaced:
    """Nothing was begun: the saga's start was rejected."""
    return NotPlaced(order_id, "rejected", str(outcome.code), outcome.message or "")


def still_running(order_id: str, timeout: float) -> StillRunning:
    """No end within so many seconds."""
    return StillRunning(
        order_id,
        f"order {order_id} has not ended within {timeout:g} s and goes on by itself: ask again with "
        f"the same order, or see `orderflow sagas show {order_id}`",
    )
