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
from typing import Any, Final

from orderflow.bus.bus import Bus
from orderflow.bus.calls import Middleware
from orderflow.memory_pipeline import TOPICS, MemoryPipeline
from readmodels.memory import AsyncMemoryRedis, MemoryProjector, MemoryRedis
from readmodels.queries import AsyncAsking
from runtime.client import CommandParked, OutgoingCommand
from runtime.records import OutgoingRecord
from schemas import headers
from schemas.decoding import decoder
from schemas.ids import end_key, reply_key
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
        self._waiting: dict[bytes, tuple[Future[Any], Callable[[bytes], Any]]] = {}
        pipeline.listeners.append(self._hear)

    def submit(self, command: OutgoingCommand) -> Future[Outcome]:
        """Sends a command; the future has its outcome. Raises CommandTooLarge."""
        with self._lock:
            command.value()  # too large: nothing is expected then
            future = self._expect(_key(command), decode_outcome)
            self._send(command)
            return future

    def submit_and_follow(
        self, command: OutgoingCommand
    ) -> tuple[Future[Outcome], Future[SagaEnd]]:
        """The same for a command that starts a saga, with the future of its end. Raises CommandTooLarge."""
        with self._lock:
            command.value()
            end = self._expect(end_key(command.aggregate_id), _decode_end)
            outcome = self._expect(_key(command), decode_outcome)
            self._send(command)
            return outcome, end

    def forget(self, command: OutgoingCommand) -> None:
        """Stops waiting for a command's outcome."""
        self._drop(_key(command))

    def unfollow(self, saga_id: str) -> None:
        """Stops waiting for a saga's end."""
        self._drop(end_key(saga_id))

    def advance(self, ms: int) -> None:
        """Lets so many milliseconds pass: appointments of sagas become due, and all that follows is done."""
        with self._lock:
            self._skipped_ms += ms
            self._pipeline.tick(ms)
            self._pipeline.settle()

    def _send(self, command: OutgoingCommand) -> None:
        if self._clock is not None:
            now_ms = self._clock() + self._skipped_ms
            self._pipeline.tick(max(0, now_ms - self._pipeline.now_ms))
        self._pipeline.send(command, _REPLY)
        self._pipeline.settle()

    def _expect(self, key: bytes, decode: Callable[[bytes], Any]) -> Future[Any]:
        found = self._waiting.get(key)
        if found is None or found[0].cancelled():
            found = self._waiting[key] = (Future(), decode)
        return found[0]

    def _drop(self, key: bytes) -> None:
        with self._lock:
            future, _ = self._waiting.pop(key, (None, None))
        if future is not None:
            future.cancel()

    def _hear(self, record: OutgoingRecord) -> None:
        if record.topic != TOPICS.replies or record.key is None or record.value is None:
            return
        put_off = put_off_by(record.key)
        future, decode = self._waiting.pop(put_off or record.key, (None, None))
        if put_off is not None:
            if future is not None and future.set_running_or_notify_cancel():
                future.set_exception(CommandParked(decode_notice(record.value)))
            return
        if future is not None and decode is not None and future.set_running_or_notify_cancel():
            future.set_result(decode(record.value))


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
