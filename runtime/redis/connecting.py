"""Where Redis is, and how every connection to it is made.

A cluster is said to be one in `REDIS_URL`, and not found out by asking: where positions are kept depends on
it (`readmodels/keys.py`), so it may not depend on who answered when; and a cluster has more than one address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from runtime.settings import Settings

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 10.0
"""A full batch of a view is answered in milliseconds; a server that is this late counts as gone."""

RETRIES: Final = 3
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0

_OF_A_CLUSTER: Final = "+cluster"
_PORT: Final = 6379

Address = tuple[str, int]


class RedisNotConfigured(RuntimeError):
    """No Redis: set REDIS_URL, or start the embedded servers with `orderflow up`."""


def redis_url(settings: Settings) -> str:
    """The URL, password and all. Raises RedisNotConfigured."""
    if settings.redis_url is None:
        raise RedisNotConfigured(RedisNotConfigured.__doc__)
    return settings.redis_url.get_secret_value()


def is_cluster(settings: Settings) -> bool:
    """Whether REDIS_URL names a cluster. Raises RedisNotConfigured."""
    return redis_url(settings).partition("://")[0].endswith(_OF_A_CLUSTER)


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """``redis+cluster://user:password@one:7000,two:7000``: some nodes of a cluster; each knows the others."""

    scheme: str
    user: str
    seeds: tuple[Address, ...]
    rest: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ValueError for a port that is none."""
        scheme, _, rest = url.partition("://")
        netloc, slash, path = rest.partition("/")
        user, at, hosts = netloc.rpartition("@")
        seeds = (urlsplit(f"//{host}") for host in hosts.split(",") if host)
        return cls(
            scheme.removesuffix(_OF_A_CLUSTER),
            user + at,
            tuple((seed.hostname or "localhost", seed.port or _PORT) for seed in seeds),
            slash + path,
        )

    def at(self, address: Address) -> str:
        """The URL of one node."""
        host, port = address
        host = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{self.user}{host}:{port}{self.rest}"


def options(*, text: bool = True) -> dict[str, Any]:
    """What every connection has in common; ``text``: replies are decoded."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_keepalive": True,
        "decode_responses": text,  # nearly all that we keep
        "protocol": 2,  # the same shape of replies from Redis 6.2 to Valkey 9
    }


def backoff() -> ExponentialWithJitterBackoff:
    """The pauses between retries."""
    return ExponentialWithJitterBackoff(base=_FIRST_PAUSE_S, cap=_LONGEST_PAUSE_S)


def connect(settings: Settings, *, text: bool = True) -> redis.Redis:
    """A pooled client of one server, safe to share between threads; reads are retried. ``text``: replies are
    strings.

    Raises RedisNotConfigured, and ValueError for a cluster (see `runtime.redis.pooled`).
    """
    retry = Retry(backoff(), RETRIES)
    return redis.Redis.from_url(redis_url(settings), retry=retry, **options(text=text))


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """The same for asyncio. Raises RedisNotConfigured, and ValueError for a cluster."""
    return redis.asyncio.Redis.from_url(
        redis_url(settings), retry=AsyncRetry(backoff(), RETRIES), **options()
    )
