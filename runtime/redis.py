"""Redis connections from the settings, and `Line`: one connection that is never replaced unseen.

Everybody may import it. `connect` and `connect_async` give ordinary pooled clients that retry by
themselves: right for reading. Whoever writes data and then the position that covers it wants a
`Line` instead: were the connection replaced in between, the data could have gone to a server that
has since been restored from an older state, and the position to the one that took its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import ConnectionInterface
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from runtime.settings import Settings

Command: TypeAlias = tuple[str | bytes | int, ...]
Reply: TypeAlias = Any

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 10.0
"""A full batch of a view is answered in milliseconds; a server that is this late counts as gone."""

RETRIES: Final = 3
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


class RedisNotConfigured(RuntimeError):
    """No Redis: set REDIS_URL, or start the embedded servers with `orderflow up`."""


def redis_url(settings: Settings) -> str:
    """The URL, password and all. Raises RedisNotConfigured."""
    if settings.redis_url is None:
        raise RedisNotConfigured(RedisNotConfigured.__doc__)
    return settings.redis_url.get_secret_value()


def _options(*, text: bool = True) -> dict[str, Any]:
    """What every connection has in common; ``text``: replies are decoded."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_keepalive": True,
        "decode_responses": text,  # nearly all that we keep
        "protocol": 2,  # the same shape of replies from Redis 6.2 to Valkey 9
    }


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=_FIRST_PAUSE_S, cap=_LONGEST_PAUSE_S)


def connect(settings: Settings, *, text: bool = True) -> redis.Redis:
    """A pooled client, safe to share between threads; reads are retried. ``text``: replies are strings.

    Raises RedisNotConfigured.
    """
    retry = Retry(_backoff(), RETRIES)
    return redis.Redis.from_url(redis_url(settings), retry=retry, **_options(text=text))


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """The same for asyncio. Raises RedisNotConfigured."""
    return redis.asyncio.Redis.from_url(
        redis_url(settings), retry=AsyncRetry(_backoff(), RETRIES), **_options()
    )


class Line:
    """Pipelines on one connection. A failure is raised, never retried; then the next run connects anew.

    Not to be shared between threads.
    """

    def __init__(self, url: str) -> None:
        self._pool = redis.ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **_options())
        self._connection: ConnectionInterface | None = None

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Send all, then read all replies. Raises the first error among them, or a lost connection."""
        whole = False
        try:
            connection = self._open()
            connection.send_packed_command([pack(commands)], check_health=False)
            replies = [_read(connection) for _ in commands]
            whole = True
        finally:
            if (
                not whole
            ):  # replies may be outstanding: nobody may read them as the answer to others
                self.close()
        return _raise_first(replies)

    def close(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _open(self) -> ConnectionInterface:
        if self._connection is None:
            connection = self._pool.make_connection()
            connection.connect()
            self._connection = connection
        return self._connection


class AsyncLine:
    """`Line` for asyncio; one run at a time."""

    def __init__(self, url: str) -> None:
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url, retry=AsyncRetry(NoBackoff(), 0), **_options()
        )
        self._connection: AsyncConnection | None = None

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Send all, then read all replies. Raises the first error among them, or a lost connection."""
        whole = False
        try:
            connection = await self._open()
            await connection.send_packed_command([pack(commands)], check_health=False)
            replies = [await _read_async(connection) for _ in commands]
            whole = True
        finally:
            if not whole:  # also when cancelled: see Line.run
                await self.close()
        return _raise_first(replies)

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _open(self) -> AsyncConnection:
        if self._connection is None:
            connection = self._pool.make_connection()
            await connection.connect()
            self._connection = connection
        return self._connection


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


def _raise_first(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies
