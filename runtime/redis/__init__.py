"""Redis connections from the settings: to one server, or to a cluster where `REDIS_URL` says that it is one.

Everybody may import it. Two kinds of connections, each in both worlds, with and without asyncio:

- `new_line`: a `Line`, which is never replaced unseen, for whoever writes data and then the position that
  covers it. A failure is raised, and the caller begins again.
- `pooled`: shared by threads, retries by itself: right for reading, and for writes that may be repeated.

Rooms: `connecting` (URL and options), `line` (one server), `slots` (which node of a cluster a command is for;
pure), `cluster` (lines to a cluster), `pooled`, `health`.
"""

from runtime.redis.cluster import AsyncClusterLine, ClusterLine
from runtime.redis.connecting import (
    RedisNotConfigured,
    connect,
    connect_async,
    is_cluster,
    redis_url,
)
from runtime.redis.health import EVICTION_REMEDY, RedisHealth, redis_health
from runtime.redis.line import AsyncLine, ClusterNotSaid, Command, Line, Reply, pack
from runtime.redis.pooled import AsyncPooled, AsyncPooledLines, Pooled, PooledLines
from runtime.redis.rewriting import Rewrite, rewrite_append_only
from runtime.settings import Settings

__all__ = [
    "EVICTION_REMEDY",
    "AsyncLine",
    "AsyncPooled",
    "AsyncPooledLines",
    "ClusterNotSaid",
    "Command",
    "Line",
    "Pooled",
    "PooledLines",
    "RedisHealth",
    "RedisNotConfigured",
    "Reply",
    "Rewrite",
    "connect",
    "connect_async",
    "is_cluster",
    "new_async_line",
    "new_line",
    "pack",
    "pooled",
    "pooled_async",
    "redis_health",
    "redis_url",
    "rewrite_append_only",
]


def new_line(settings: Settings) -> Line:
    """A line that connects at its first run. Raises RedisNotConfigured."""
    url = redis_url(settings)
    return ClusterLine(url) if is_cluster(settings) else Line(url)


def new_async_line(settings: Settings) -> AsyncLine:
    """The same for asyncio. Raises RedisNotConfigured."""
    url = redis_url(settings)
    return AsyncClusterLine(url) if is_cluster(settings) else AsyncLine(url)


def pooled(settings: Settings, *, text: bool = True) -> Pooled | PooledLines:
    """Pipelines that are retried; ``text``: replies are strings. Raises RedisNotConfigured."""
    if not is_cluster(settings):
        return Pooled(connect(settings, text=text))
    url = redis_url(settings)
    return PooledLines(lambda: ClusterLine(url, text=text, follows=True))


def pooled_async(settings: Settings) -> AsyncPooled | AsyncPooledLines:
    """The same for asyncio. Raises RedisNotConfigured."""
    if not is_cluster(settings):
        return AsyncPooled(connect_async(settings))
    url = redis_url(settings)
    return AsyncPooledLines(lambda: AsyncClusterLine(url, follows=True))
