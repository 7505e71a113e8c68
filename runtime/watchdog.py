"""The heartbeats of a role's loops, and a thread that ends the process when one of them stops.

Every call of a client library has a time-out of its own, but a library may ignore it. A client that hangs in
a call cannot be destroyed, so the process ends: its supervisor starts it again, with new clients.

Code that waits on the main thread in bounded steps calls ``beat`` after each of them. Where several loops
share the thread, as those of an asyncio role do, each has a heartbeat of its own (``watched``).
"""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from runtime.role import EXIT_REFUSED

logger = logging.getLogger(__name__)

T = TypeVar("T")

HANGS_AFTER_S: Final = 90.0
"""Longer than the longest single call may take, which is a producer's ``init_transactions``."""

CHECK_S: Final = 1.0

MAIN: Final = "main loop"

_last: dict[int, dict[str, float]] = {}
"""Of each watched thread, by its number: when each of its loops has beaten last, on the monotonic clock."""


def beat(loop: str = MAIN) -> None:
    """Say that this loop, and with it the thread, goes on; does nothing on a thread that is not watched."""
    beats = _last.get(threading.get_ident())
    if beats is not None:
        beats[MAIN] = time.monotonic()
        if loop in beats:
            beats[loop] = beats[MAIN]


@contextmanager
def watched(loop: str) -> Iterator[None]:
    """From now on this loop of this thread has to beat, too; its name is unique in the process."""
    beats = _last.get(threading.get_ident(), {})
    beats[loop] = time.monotonic()
    try:
        yield
    finally:
        beats.pop(loop, None)


async def beating(work: Awaitable[T]) -> T:
    """Return what the work returns, and beat while the event loop turns: what blocks it is what hangs."""

    async def beat_on() -> None:
        while True:
            beat()
            await asyncio.sleep(CHECK_S)

    turning = asyncio.create_task(beat_on())
    try:
        return await work
    finally:
        turning.cancel()


class Watchdog:
    """Watches the thread that enters it. ``role`` names the process in the log."""

    def __init__(self, role: str, hangs_after_s: float | None = None) -> None:
        self._role = role
        self._hangs_after_s = HANGS_AFTER_S if hangs_after_s is None else hangs_after_s
        self._ended = threading.Event()
        self._watched = 0

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        _last[self._watched] = {MAIN: time.monotonic()}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        _last.pop(self._watched, None)

    def _watch(self) -> None:
        checked_at = runs_since = time.monotonic()
        while not self._ended.wait(CHECK_S):
            now = time.monotonic()
            if now - checked_at > 2 * CHECK_S:
                # The whole process was suspended or starved; the watched thread gets its time, too.
                runs_since = now
            checked_at = now
            for loop, at in list(_last.get(self._watched, {}).items()):
                silent_s = now - max(at, runs_since)
                if silent_s > self._hangs_after_s and not self._ended.is_set():
                    self._end(loop, silent_s)

    def _end(self, loop: str, silent_s: float) -> None:
        logger.critical(
            "%s hangs: its %s has made no turn for %.0f s; it ends, for its supervisor to start it "
            "again. Where each thread is:",
            self._role,
            loop,
            silent_s,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(EXIT_REFUSED)
