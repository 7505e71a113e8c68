"""The heartbeat of a role's main loop, and a thread that ends the process when it stops.

Every call of a client library has a time-out of its own, but a library may ignore it. A client that hangs in
a call cannot be destroyed, so the process ends: its supervisor starts it again, with new clients.

Code that waits on the main thread in bounded steps calls ``beat`` after each of them.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Final, Self

from runtime.role import EXIT_REFUSED

logger = logging.getLogger(__name__)

HANGS_AFTER_S: Final = 90.0
"""Longer than the longest single call may take, which is a producer's ``init_transactions``."""

CHECK_S: Final = 1.0

_last: dict[int, float] = {}
"""When each watched thread has beaten last, on the monotonic clock, by the thread's number."""


def beat() -> None:
    """Say that this thread goes on; does nothing on a thread that is not watched."""
    me = threading.get_ident()
    if me in _last:
        _last[me] = time.monotonic()


class Watchdog:
    """Watches the thread that enters it. ``role`` names the process in the log."""

    def __init__(self, role: str, hangs_after_s: float = HANGS_AFTER_S) -> None:
        self._role = role
        self._hangs_after_s = hangs_after_s
        self._ended = threading.Event()
        self._watched = 0

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        _last[self._watched] = time.monotonic()
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
        checked_at = time.monotonic()
        while not self._ended.wait(CHECK_S):
            now = time.monotonic()
            if now - checked_at > 2 * CHECK_S:
                # The whole process was suspended or starved; the watched thread gets its time, too.
                _last[self._watched] = now
            checked_at = now
            silent_s = now - _last.get(self._watched, now)
            if silent_s > self._hangs_after_s and not self._ended.is_set():
                self._end(silent_s)

    def _end(self, silent_s: float) -> None:
        logger.critical(
            "%s hangs: its main loop has made no turn for %.0f s; it ends, for its supervisor to start it "
            "again. Where each thread is:",
            self._role,
            silent_s,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(EXIT_REFUSED)
