"""`Line`: one connection to one server that is never replaced unseen.

Whoever writes data and then the position that covers it wants one: were the connection replaced in between,
the data could have gone to a server that has since been restored from an older state, and the position to
the one that took its place. `cluster` has the same for many servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface
from redis.exceptions import MovedError, RedisError, ResponseError
from redis.retry import Retry

from runtime.redis.connecting import options

Command: TypeAlias = tuple[str | bytes | int, ...]
Reply: TypeAlias = Any

FIRST_CURSOR: Final = "0"


class ClusterNotSaid(ResponseError):
    """REDIS_URL names a node of a cluster as if it were alone: begin it with redis+cluster://."""


class Wire:
    """One connection, made when it is first used. After a failure it has to be closed: replies may be
    outstanding, and nobody may read them as the answer to others.
    """

    def __init__(self, url: str, *, text: bool = True) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url, retry=Retry(NoBackoff(), 0), **options(text=text)
        )
        self._connection: ConnectionInterface | None = None

    def send(self, commands: Sequence[Command]) -> None:
        """Raises RedisError, OSError."""
        if self._connection is None:
            connection = self._pool.make_connection()
            connection.connect()
            self._connection = connection
        self._connection.send_packed_command([pack(commands)], check_health=False)

    def receive(self, count: int) -> list[Reply]:
        """The replies to so many commands; an error that the server answers is one, too. Raises as `send`."""
        connection = self._connection
        assert connection is not None, "nothing was sent"
        return [_read(connection) for _ in range(count)]

    def close(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class Line:
    """Pipelines on one connection. A failure is raised, never retried; then the next run connects anew.

    ``text``: replies are strings. Not to be shared between threads.
    """

    def __init__(self, url: str, *, text: bool = True) -> None:
        self._wire = Wire(url, text=text)

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Send all, then read all replies. Raises the first error among them, or a lost connection."""
        whole = False
        try:
            self._wire.send(commands)
            replies = self._wire.receive(len(commands))
            whole = True
        finally:
            if not whole:
                self.close()
        return raise_first(replies)

    def scan(self, pattern: str, count: int) -> Iterator[list[str]]:
        """Keys that match, about ``count`` at a time. One may come twice, none that stays is left out.

        In between the line may run something else. Raises as `run`.
        """
        cursor = FIRST_CURSOR
        while True:
            cursor, page = self.run([("SCAN", cursor, "MATCH", pattern, "COUNT", count)])[0]
            yield page
            if cursor == FIRST_CURSOR:
                return

    def close(self) -> None:
        """Drop the connection, if there is one."""
        self._wire.close()


class AsyncWire:
    """`Wire` for asyncio."""

    def __init__(self, url: str) -> None:
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url, retry=AsyncRetry(NoBackoff(), 0), **options()
        )
        self._connection: AsyncConnection | None = None

    async def send(self, commands: Sequence[Command]) -> None:
        """See `Wire.send`."""
        if self._connection is None:
            connection = self._pool.make_connection()
            await connection.connect()
            self._connection = connection
        await self._connection.send_packed_command([pack(commands)], check_health=False)

    async def receive(self, count: int) -> list[Reply]:
        """See `Wire.receive`."""
        connection = self._connection
        assert connection is not None, "nothing was sent"
        return [await _read_async(connection) for _ in range(count)]

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


class AsyncLine:
    """`Line` for asyncio; one run at a time."""

    def __init__(self, url: str) -> None:
        self._wire = AsyncWire(url)

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Send all, then read all replies. Raises the first error among them, or a lost connection."""
        whole = False
        try:
            await self._wire.send(commands)
            replies = await self._wire.receive(len(commands))
            whole = True
        finally:
            if not whole:  # also when cancelled
                await self.close()
        return raise_first(replies)

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        await self._wire.close()


def pack(commands: Sequence[Command]) -> bytes:
    """The commands as Redis reads them. The client's own way takes four times as long for many arguments."""
    lines: list[bytes] = []
    for command in commands:
        lines.append(b"*%d" % len(command))
        for argument in command:
            data = argument if isinstance(argument, bytes) else str(argument).encode()
            size = len(data)
            lines.append(_SIZES[size] if size < _SIZES_KNOWN else b"$%d" % size)
            lines.append(data)
    lines.append(b"")
    return b"\r\n".join(lines)


_SIZES_KNOWN: Final = 256  # hardly a key or a number is longer
_SIZES: Final = [b"$%d" % size for size in range(_SIZES_KNOWN)]


def raise_first(replies: list[Reply]) -> list[Reply]:
    """The replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, MovedError):
            raise ClusterNotSaid(f"{ClusterNotSaid.__doc__} It answered: {reply}") from reply
        if isinstance(reply, RedisError):
            raise reply
    return replies


def _read(connection: ConnectionInterface) -> Reply:
    """One reply; an error that the server answers is a reply too, so that the others are read."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


async def _read_async(connection: AsyncConnection) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
