"""How fast verification may look, and how it is told to stop; knows nothing of what is looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Stopped(Exception):
    """The process was told to stop; what was found so far is of no use."""


class Pace:
    """``per_s``: records and rows looked at a second, None: as fast as it goes. ``meanwhile`` is called again
    and again, and may raise.
    """

    def __init__(
        self,
        per_s: int | None = None,
        stop: threading.Event | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._per_s = per_s
        self._stop = stop or threading.Event()
        self._meanwhile = meanwhile
        self._free_at = 0.0

    @property
    def batch(self) -> int:
        """How many to take at once, so that a slow pace is an even one."""
        return 1_000 if self._per_s is None else max(1, min(1_000, self._per_s // 5))

    def spend(self, count: int) -> None:
        """Wait until so many were allowed. Raises Stopped, and what is done meanwhile raises."""
        self._meanwhile()
        now = time.monotonic()
        if self._per_s is not None:
            self._free_at = max(self._free_at, now) + count / self._per_s
        if self._stop.wait(max(0.0, self._free_at - now)):
            raise Stopped
