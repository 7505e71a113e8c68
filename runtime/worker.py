"""A thread for calls that may never return, and that can be left behind while one of them hangs.

``concurrent.futures`` joins its threads when the interpreter ends, so one hanging call would keep the whole
process from ending. These threads are daemons.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs one call after another on a daemon thread. ``close`` lets the thread end after its last call."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run a call behind those before it."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = call(*arguments)
            except BaseException as error:  # noqa: BLE001 - the future's reader gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def close(self) -> None:
        """End the thread, once the calls so far have returned; does not wait for that."""
        self._calls.put(None)

    def _run(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
