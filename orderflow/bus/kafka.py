"""The bus in production: commands over Kafka, views from Redis.

Handlers and middleware are those of every bus; what is only here are the clients, and the one middleware
that says in the bus' words what their libraries raise when servers are away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import redis
from confluent_kafka import KafkaError, KafkaException

from orderflow.bus.bus import Bus
from orderflow.bus.calls import Call, Middleware, Proceed
from orderflow.bus.errors import Unavailable
from orderflow.bus.middleware import standard
from readmodels import AsyncQueries
from runtime.client import AsyncCommandClient, NotDelivered
from runtime.settings import Settings

_REDIS_AWAY: Final = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError)
_KAFKA_AWAY: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
)


@asynccontextmanager
async def kafka_bus(
    settings: Settings, middleware: Sequence[Middleware] | None = None
) -> AsyncIterator[Bus]:
    """A bus over the servers that the settings name (see `orderflow.servers.located`).

    ``middleware``: as `Bus`'. Raises KafkaException when no broker answers, KafkaNotConfigured,
    RedisNotConfigured.
    """
    steps = standard() if middleware is None else middleware
    async with AsyncCommandClient(settings) as commands, AsyncQueries(settings) as views:
        yield Bus(commands.threaded, views, (*steps, outages))


async def outages(call: Call, proceed: Proceed) -> Any:
    """Innermost: servers that are away are `Unavailable`, and so the call is tried again."""
    try:
        return await proceed(call)
    except NotDelivered as error:
        raise Unavailable(f"Kafka did not take it: {error}") from error
    except KafkaException as error:
        cause = error.args[0]
        if cause.retriable() or cause.code() in _KAFKA_AWAY:
            raise Unavailable(f"Kafka is not there: {cause.str()}") from error
        raise
    except _REDIS_AWAY as error:
        raise Unavailable(f"Redis is not there: {error}") from error
