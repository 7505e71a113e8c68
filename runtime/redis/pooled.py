"""Pipelines that may be shared and are retried: on one server with the client's own pool, on a cluster with
idle lines. Each is a `readmodels.steps.Runner`, or an `AsyncRunner`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
import redis.asyncio

from runtime.redis.cluster import AsyncClusterLine, ClusterLine
from runtime.redis.connecting import RETRIES, backoff
from runtime.redis.line import Command, Reply

_PASSING: Final = (redis.ConnectionError, redis.TimeoutError, OSError)


class Pooled:
    """A pooled client: pipelines without MULTI, replies as Redis sent them."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Raises RedisError; the client retries by itself first."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.response_callbacks = {}  # shapes of replies are ours to judge, as on a Line
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Reply] = pipeline.execute()
        return replies

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()


class AsyncPooled:
    """`Pooled` for asyncio."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client: Any = client

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Raises RedisError; the client retries by itself first."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.response_callbacks = {}
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Reply] = await pipeline.execute()
        return replies

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()


class PooledLines:
    """`Pooled` for a cluster: as many lines as there are pipelines at the same time."""

    def __init__(self, new_line: Callable[[], ClusterLine]) -> None:
        self._new_line = new_line
        self._idle: list[ClusterLine] = []  # appending and popping are atomic

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Raises RedisError or OSError, after some retries if it may pass."""
        pauses, attempt = backoff(), 0
        while True:
            try:
                return self._try(commands)
            except _PASSING:
                attempt += 1
                if attempt > RETRIES:
                    raise
            time.sleep(pauses.compute(attempt))

    def _try(self, commands: Sequence[Command]) -> list[Reply]:
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._new_line()
        try:
            return line.run(commands)
        finally:
            self._idle.append(line)  # the same is tried again: the others may be broken, too

    def close(self) -> None:
        """Drop the connections."""
        while self._idle:
            self._idle.pop().close()


class AsyncPooledLines:
    """`PooledLines` for asyncio."""

    def __init__(self, new_line: Callable[[], AsyncClusterLine]) -> None:
        self._new_line = new_line
        self._idle: list[AsyncClusterLine] = []

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """As PooledLines.run."""
        pauses, attempt = backoff(), 0
        while True:
            line = self._idle.pop() if self._idle else self._new_line()
            try:
                return await line.run(commands)
            except _PASSING:
                attempt += 1
                if attempt > RETRIES:
                    raise
            finally:
                self._idle.append(line)
            await asyncio.sleep(pauses.compute(attempt))

    async def close(self) -> None:
        """Drop the connections."""
        while self._idle:
            await self._idle.pop().close()
