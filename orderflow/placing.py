"""One call that places an order across users, inventory, payments and orders, and says how it ended.

    with OrderClient(settings) as orders:
        placement = orders.place_order("o-1", user_id=..., lines=..., currency=..., payment_token=...)

Asked again with the same order id and contents: the same answer, and no second order.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from runtime.client import AsyncCommandClient, CommandClient, OutgoingCommand, room
from runtime.settings import Settings
from runtime.waiting import RepliesMissed
from sagas import choreography, create_order
from sagas.create_order import Coordination
from schemas.ids import derived_id
from schemas.records import Outcome, encode
from schemas.saga import EndStatus, SagaEnd
from schemas.topics import SAGA

T = TypeVar("T")

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
    """No end within the time, or none that this release knows. It goes on by itself; ``message`` says how to
    find it later.
    """

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

        ``order``: as ``order_command``'s. Raises NotDelivered, CommandParked, NoReply, CommandTooLarge.
        """
        command = order_command(order_id, **order)
        begun = False
        for question in _questions(self._client, command, timeout):
            if not begun:
                wait((question.outcome,), question.left)
                outcome = _heard(question.outcome)
                if outcome is not None and not outcome.accepted:
                    return refused(order_id, outcome)
                begun = outcome is not None
            if begun:
                wait((question.end,), question.left)
                if (end := _heard(question.end)) is not None:
                    return ended(order_id, end)
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
        begun = False
        deadline = time.monotonic() + timeout
        if not await self._has_room(timeout):
            return still_running(order_id, timeout)
        for question in _questions(self._client.threaded, command, deadline - time.monotonic()):
            if not begun:
                asked = asyncio.wrap_future(question.outcome)
                await asyncio.wait((asked,), timeout=question.left)
                outcome = _heard(asked)
                if outcome is not None and not outcome.accepted:
                    return refused(order_id, outcome)
                begun = outcome is not None
            if begun:
                followed = asyncio.wrap_future(question.end)
                await asyncio.wait((followed,), timeout=question.left)
                if (end := _heard(followed)) is not None:
                    return ended(order_id, end)
        return still_running(order_id, timeout)

    async def _has_room(self, timeout: float) -> bool:
        """Return whether a command can be sent within this time without stopping the loop."""
        try:
            async with asyncio.timeout(timeout):
                await room(self._client.threaded)
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Question:
    """The futures of one time of asking; ``until`` on the monotonic clock."""

    outcome: Future[Outcome]
    end: Future[SagaEnd]
    until: float

    @property
    def left(self) -> float:
        """Seconds for which an answer is waited for."""
        return max(0.0, self.until - time.monotonic())


def _questions(
    client: CommandClient, command: OutgoingCommand, timeout: float
) -> Iterator[_Question]:
    """Ask, and ask again, until the time is up. What is not answered by then is waited for no longer; a late
    answer to a question before counts for the next one, because it asks the same.
    """
    deadline = time.monotonic() + timeout
    while (now := time.monotonic()) < deadline:
        outcome, end = client.submit_and_follow(command)
        try:
            yield _Question(outcome, end, min(deadline, now + ASK_AGAIN_S))
        finally:
            outcome.cancel()
            end.cancel()


def _heard(future: Future[T] | asyncio.Future[T]) -> T | None:
    """Return what has come; None: nothing yet, or replies were missed, so it is to be asked again."""
    if not future.done():
        return None
    try:
        return future.result()
    except RepliesMissed:
        return None


def ended(order_id: str, end: SagaEnd) -> Placement:
    """Return what the end of its saga means for an order."""
    if end.status is EndStatus.COMPLETED:
        return Placed(order_id, end.ended_at_ms)
    if not end.status.known:
        return StillRunning(
            order_id,
            f"the saga of order {order_id} is {end.status}, which this release does not know: see "
            f"`orderflow sagas show {order_id}`, and upgrade the client",
        )
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
