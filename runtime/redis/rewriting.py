"""Rewrite the append-only file of Redis, so that it holds nothing of what was deleted."""

import time
from enum import Enum, auto
from typing import Final

from redis.exceptions import ResponseError

from runtime.redis.health import RedisHealth, redis_health
from runtime.redis.line import Line

POLL_S: Final = 0.1
_BUSY: Final = "already in progress"


class Rewrite(Enum):
    """What came of it."""

    DONE = auto()
    NO_FILE = auto()
    RUNNING = auto()
    REFUSED = auto()


def rewrite_append_only(line: Line, within_s: float) -> Rewrite:
    """Rewrite the file of every server and wait for it. Raises RedisError, OSError."""
    deadline = time.monotonic() + within_s
    if not any(server.append_only for server in redis_health(line)):
        return Rewrite.NO_FILE
    # One that runs already may have begun before the deletion.
    while _is_rewriting(redis_health(line)):
        if time.monotonic() > deadline:
            return Rewrite.RUNNING
        time.sleep(POLL_S)
    try:
        line.run([("BGREWRITEAOF",)])
    except ResponseError as refusal:
        if _BUSY not in str(refusal):
            return Rewrite.REFUSED  # a managed Redis, or a user without the right to
        return Rewrite.RUNNING
    while _is_rewriting(servers := redis_health(line)):
        if time.monotonic() > deadline:
            return Rewrite.RUNNING
        time.sleep(POLL_S)
    return Rewrite.RUNNING if any(server.writes_fail for server in servers) else Rewrite.DONE


def _is_rewriting(servers: tuple[RedisHealth, ...]) -> bool:
    return any(server.rewriting for server in servers)
