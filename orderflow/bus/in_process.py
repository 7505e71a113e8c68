"""The bus in one process, without Kafka and Redis: for the tests of a service, and to try things out.

Shipped, public, and held to the real one by one suite (tests/support/bus_suite.py). It runs the real core:
edge, deciders with their idempotency, sagas and their follow-ups until nothing is left to do, the simulated
payment gateway, projections, questions. What it does not have is what the servers are for: nothing is kept
when the process ends, nothing is shared with another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Final

from orderflow.bus.bus import Bus
from orderflow.bus.calls import Middleware
from orderflow.memory_pipeline import TOPICS, MemoryPipeline
from readmodels.memory import AsyncMemoryRedis, MemoryProjector, MemoryRedis
from readmodels.queries import AsyncAsking
from runtime.client import CommandParked, OutgoingCommand
from runtime.records import OutgoingRecord
from runtime.waiting import Waiters, token_of
from schemas import headers
from schemas.decoding import decoder
from schemas.ids import end_key, is_end_key, reply_key
from schemas.parking import decode_notice, put_off_by
from schemas.records import Outcome, decode_outcome
from schemas.saga import SagaEnd
from schemas.topics import AGGREGATES

_decode_end: Final = decoder(SagaEnd)
_EVENTS: Final = {TOPICS.events(aggregate): aggregate for aggregate in AGGREGATES}
_REPLY: Final = (headers.REPLY_PARTITION, b"0")


class InProcess:
    """A client of a pipeline in memory, with `runtime.client.CommandClient`'s methods; thread-safe.

    A command is decided, and all that follows from it done, before ``submit`` returns.
    """

    def __init__(self, pipeline: MemoryPipeline, clock: Callable[[], int] | None) -> None:
        """``clock``: epoch milliseconds UTC; None: time stands still but for ``advance``."""
        self._pipeline = pipeline
        self._clock = clock
        self._skipped_ms = 0
        self._lock = threading.Lock()
        self._waiters = Waiters()
        pipeline.listeners.append(self._hear)

    crowded = False

    def submit(self, command: OutgoingCommand) -> Future[Outcome]:
        """Sends a command; the future has its outcome. Raises CommandTooLarge."""
        token = token_of(command.value())
        with self._lock:
            future = self._waiters.expect(_key(command), token, decode_outcome)
            self._send(command, token)
            return future

    def submit_and_follow(
        self, command: OutgoingCommand
    ) -> tuple[Future[Outcome], Future[SagaEnd]]:
        """The same for a command that starts a saga, with the future of its end. Raises CommandTooLarge."""
        token = token_of(command.value())
        with self._lock:
            end = self._waiters.expect(end_key(command.aggregate_id), token, _decode_end)
            outcome = self._waiters.expect(_key(command), token, decode_outcome)
            self._send(command, token)
            return outcome, end

    def advance(self, ms: int) -> None:
        """Lets so many milliseconds pass: appointments of sagas become due, and all that follows is done."""
        with self._lock:
            self._skipped_ms += ms
            self._pipeline.tick(ms)
            self._pipeline.settle()

    def _send(self, command: OutgoingCommand, token: bytes) -> None:
        if self._clock is not None:
            now_ms = self._clock() + self._skipped_ms
            self._pipeline.tick(max(0, now_ms - self._pipeline.now_ms))
        self._pipeline.send(command, _REPLY, (headers.REPLY_TOKEN, token))
        self._pipeline.settle()

    def _hear(self, record: OutgoingRecord) -> None:
        if record.topic != TOPICS.replies or record.key is None or record.value is None:
            return
        told = dict(headers.as_bytes(record.headers)).get(headers.REPLY_TOKEN)
        put_off = put_off_by(record.key)
        if put_off is not None:
            self._waiters.fail(put_off, told, CommandParked(decode_notice(record.value)))
        elif is_end_key(record.key):
            self._waiters.complete_all(record.key, record.value)
        else:
            self._waiters.complete(record.key, told, record.value)


class InProcessBus(Bus):
    """A bus whose pipeline can be looked into. ``pipeline``: all that was sent, decided and kept."""

    def __init__(
        self,
        middleware: Sequence[Middleware] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """``clock``: epoch milliseconds UTC, the system's if left out."""
        clock = clock or _system_clock
        self.pipeline = MemoryPipeline(clock())
        self._client = InProcess(self.pipeline, clock)
        store = MemoryRedis()
        self._projector = MemoryProjector(store, TOPICS.prefix)
        self.pipeline.listeners.append(self._project)
        views = AsyncAsking(AsyncMemoryRedis(store), TOPICS.prefix)
        super().__init__(self._client, views, middleware)

    def advance(self, ms: int) -> None:
        """Lets so many milliseconds pass; see `InProcess.advance`."""
        self._client.advance(ms)

    def _project(self, record: OutgoingRecord) -> None:
        aggregate = _EVENTS.get(record.topic)
        if aggregate is not None:
            marks = [(n, v.encode() if isinstance(v, str) else v) for n, v in record.headers]
            self._projector.record(aggregate, record.key, record.value, marks)


@asynccontextmanager
async def in_process_bus(
    middleware: Sequence[Middleware] | None = None, clock: Callable[[], int] | None = None
) -> AsyncIterator[InProcessBus]:
    """An empty pipeline of its own, opened as `kafka_bus` is. ``middleware``, ``clock``: as
    `InProcessBus`'.
    """
    yield InProcessBus(middleware, clock)


def _key(command: OutgoingCommand) -> bytes:
    return reply_key(command.aggregate, command.aggregate_id, command.command_id)


def _system_clock() -> int:
    return time.time_ns() // 1_000_000
