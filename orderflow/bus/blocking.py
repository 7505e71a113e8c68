"""The bus for code without asyncio: the same calls, each waits for its answer.

    with blocking(kafka_bus(settings)) as bus:
        outcome = bus.execute_command(RegisterUser(name="Ada"), aggregate_id="ada")

One thread runs the loop; any number of threads may call. A trace context of the caller goes along.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, TypeVar

from commands.aggregate import Command
from orderflow.bus.bus import COMMAND_TIMEOUT_S, QUERY_TIMEOUT_S, Bus
from orderflow.bus.queries import Query
from orderflow.placing import Placement
from schemas.records import Outcome

A = TypeVar("A")
B = TypeVar("B", bound=Bus)


class BlockingBus(Generic[B]):
    """``bus``: the bus behind it, to register handlers with before the first call."""

    def __init__(self, bus: B, loop: asyncio.AbstractEventLoop) -> None:
        self.bus = bus
        self._loop = loop

    def execute_command(
        self, command: Command, *, timeout: float = COMMAND_TIMEOUT_S, **call: Any
    ) -> Outcome:
        """As Bus.execute_command, with its arguments."""
        return self._run(self.bus.execute_command(command, timeout=timeout, **call))

    def execute_query(
        self,
        query: Query[A],
        *,
        at_least: Outcome | Sequence[Outcome] = (),
        timeout: float = QUERY_TIMEOUT_S,
    ) -> A:
        """As Bus.execute_query."""
        return self._run(self.bus.execute_query(query, at_least=at_least, timeout=timeout))

    def place_order(
        self, order_id: str, *, timeout: float = COMMAND_TIMEOUT_S, **order: Any
    ) -> Placement:
        """As Bus.place_order."""
        return self._run(self.bus.place_order(order_id, timeout=timeout, **order))

    def _run(self, coroutine: Coroutine[Any, Any, A]) -> A:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C here is no reason to go on there
            raise


@contextmanager
def blocking(opening: AbstractAsyncContextManager[B]) -> Iterator[BlockingBus[B]]:
    """Opens a bus in a thread of its own and closes it at the end. Raises what opening raises."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="bus", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        bus: B = run(opening.__aenter__())
        try:
            yield BlockingBus(bus, loop)
        finally:
            run(opening.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
