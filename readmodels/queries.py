"""The questions the views answer, with and without asyncio.

Both clients hold the same conversations (`questions`), through a pooled client that retries; they may be
shared by threads and tasks. Answers are those of one view at one moment: `wait_for` first, to read what
one has just written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from readmodels import questions
from readmodels.answers import (
    OrderAnswer,
    OrderPage,
    PartitionLag,
    SagaAnswer,
    StockAnswer,
    TopUser,
    UserAnswer,
    ViewStatus,
)
from readmodels.positions import part
from readmodels.preflight import watermarks
from readmodels.questions import Ranking
from readmodels.steps import AsyncRunner, Runner, drive, drive_async
from readmodels.unreadable import AsyncReadableRunner, ReadableRunner
from readmodels.views import VIEWS
from runtime.redis import is_cluster, pooled, pooled_async
from runtime.settings import Settings

PAGE: Final = 50
WAIT_S: Final = 10.0


class Asking:
    """The questions, over whatever holds conversations with Redis, or with `memory`. ``spread``: see
    `keys.Keys`.
    """

    def __init__(self, runner: Runner, prefix: str, *, spread: bool = False) -> None:
        self._runner = ReadableRunner(runner)
        self._prefix = prefix
        self._spread = spread

    def order(self, order_id: str) -> OrderAnswer | None:
        """An order; None if there is none."""
        return drive(self._runner, questions.order(self._prefix, order_id))

    def orders_of(self, user_id: str, cursor: str | None = None, limit: int = PAGE) -> OrderPage:
        """A user's orders, newest first; ``cursor``: `next` of the page before."""
        return drive(self._runner, questions.orders_of(self._prefix, user_id, cursor, limit))

    def user(self, user_id: str) -> UserAnswer | None:
        """A user, how many orders they have in each status, and what they spent in each currency."""
        return drive(self._runner, questions.user(self._prefix, user_id))

    def stock(self, sku: str) -> StockAnswer | None:
        """The stock of a SKU; None if it is not registered."""
        return drive(self._runner, questions.stock(self._prefix, sku))

    def low_stock(self, limit: int = PAGE) -> tuple[StockAnswer, ...]:
        """SKUs at or below their threshold, those with the fewest pieces first."""
        return drive(self._runner, questions.low_stock(self._prefix, limit))

    def top_users(
        self, by: Ranking = "spent", currency: str = "EUR", limit: int = PAGE
    ) -> tuple[TopUser, ...]:
        """Who spent most in a currency, or has most orders; equal ones by id, backwards."""
        return drive(self._runner, questions.top_users(self._prefix, by, currency, limit))

    def saga(self, saga_id: str) -> SagaAnswer | None:
        """How a saga stands; None if there is none."""
        return drive(self._runner, questions.saga(self._prefix, saga_id))

    def sagas(self, status: str | None = None, limit: int = PAGE) -> tuple[SagaAnswer, ...]:
        """Sagas of a status; None: all that have not ended, those that need somebody first, and of these
        those in which nothing has moved for longest. Raises ValueError for an unknown status.
        """
        return drive(self._runner, questions.sagas(self._prefix, status, limit))

    def status(self) -> tuple[ViewStatus, ...]:
        """Generation and positions of each view."""
        return drive(self._runner, questions.status(self._prefix, spread=self._spread))

    def wait_for(self, view: str, aggregate_id: str, version: int, timeout: float = WAIT_S) -> int:
        """Wait until a view has an aggregate at ``version`` or newer; returns what it has.

        Raises ViewTimeout.
        """
        steps = questions.wait_for(self._prefix, view, aggregate_id, version, timeout)
        return drive(self._runner, steps)


class Queries(Asking):
    """Close it, or use it as a context manager. Every method may raise RedisError and ViewUnreadable."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first question. Raises RedisNotConfigured."""
        self._settings = settings
        self._redis = pooled(settings)
        super().__init__(self._redis, settings.topic_prefix, spread=is_cluster(settings))

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
        """Drop the connections."""
        self._redis.close()

    def lag(self) -> tuple[PartitionLag, ...]:
        """How far each view is behind its topic. Raises KafkaException."""
        return _lag(self._settings, self.status())


class AsyncAsking:
    """`Asking` for asyncio."""

    def __init__(self, runner: AsyncRunner, prefix: str, *, spread: bool = False) -> None:
        self._runner = AsyncReadableRunner(runner)
        self._prefix = prefix
        self._spread = spread

    async def order(self, order_id: str) -> OrderAnswer | None:
        """See `Asking.order`."""
        return await drive_async(self._runner, questions.order(self._prefix, order_id))

    async def orders_of(
        self, user_id: str, cursor: str | None = None, limit: int = PAGE
    ) -> OrderPage:
        """See `Asking.orders_of`."""
        steps = questions.orders_of(self._prefix, user_id, cursor, limit)
        return await drive_async(self._runner, steps)

    async def user(self, user_id: str) -> UserAnswer | None:
        """See `Asking.user`."""
        return await drive_async(self._runner, questions.user(self._prefix, user_id))

    async def stock(self, sku: str) -> StockAnswer | None:
        """See `Asking.stock`."""
        return await drive_async(self._runner, questions.stock(self._prefix, sku))

    async def low_stock(self, limit: int = PAGE) -> tuple[StockAnswer, ...]:
        """See `Asking.low_stock`."""
        return await drive_async(self._runner, questions.low_stock(self._prefix, limit))

    async def top_users(
        self, by: Ranking = "spent", currency: str = "EUR", limit: int = PAGE
    ) -> tuple[TopUser, ...]:
        """See `Asking.top_users`."""
        steps = questions.top_users(self._prefix, by, currency, limit)
        return await drive_async(self._runner, steps)

    async def saga(self, saga_id: str) -> SagaAnswer | None:
        """See `Asking.saga`."""
        return await drive_async(self._runner, questions.saga(self._prefix, saga_id))

    async def sagas(self, status: str | None = None, limit: int = PAGE) -> tuple[SagaAnswer, ...]:
        """See `Asking.sagas`."""
        return await drive_async(self._runner, questions.sagas(self._prefix, status, limit))

    async def status(self) -> tuple[ViewStatus, ...]:
        """See `Asking.status`."""
        steps = questions.status(self._prefix, spread=self._spread)
        return await drive_async(self._runner, steps)

    async def wait_for(
        self,
        view: str,
        aggregate_id: str,
        version: int,
        timeout: float = WAIT_S,
    ) -> int:
        """See `Asking.wait_for`."""
        steps = questions.wait_for(self._prefix, view, aggregate_id, version, timeout)
        return await drive_async(self._runner, steps)


class AsyncQueries(AsyncAsking):
    """`Queries` for asyncio. Close it with `aclose`, or use it as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first question. Raises RedisNotConfigured."""
        self._settings = settings
        self._redis = pooled_async(settings)
        super().__init__(self._redis, settings.topic_prefix, spread=is_cluster(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drop the connections."""
        await self._redis.close()

    async def lag(self) -> tuple[PartitionLag, ...]:
        """See `Queries.lag`."""
        return await asyncio.to_thread(_lag, self._settings, await self.status())


def _lag(settings: Settings, statuses: Sequence[ViewStatus]) -> tuple[PartitionLag, ...]:
    ends = watermarks(settings, VIEWS)
    reading = {view.name: f"{settings.topic_prefix}.{view.aggregate}.events" for view in VIEWS}
    rows: list[PartitionLag] = []
    for status in statuses:
        positions = {part(name): at for name, at in status.positions.items()}
        for (topic, number), (low, high) in sorted(ends.items()):
            if topic == reading[status.view]:
                at = positions.get((topic, number), low)
                rows.append(PartitionLag(status.view, topic, number, at, high))
    return tuple(rows)
