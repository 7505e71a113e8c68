"""Writes batches to Redis while the next ones are read: those of a partition one after the other, those of
different partitions side by side. Only `filling` uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final

from readmodels.positions import TopicPart
from runtime.redis import Line, new_line
from runtime.settings import Settings

AT_ONCE: Final = 4
"""Batches in work at a time. Redis serves one of them; the others are being packed, or wait for replies."""

Work = Callable[[Line], None]


class Writing:
    """Every partition has at most one batch on its way. Close it in the end."""

    def __init__(self, settings: Settings) -> None:
        self._lines: SimpleQueue[Line] = SimpleQueue()
        for _ in range(AT_ONCE):
            self._lines.put(new_line(settings))
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rebuild-writer")
        self._on_the_way: dict[TopicPart, Future[None]] = {}

    def submit(self, part: TopicPart, work: Work) -> None:
        """Begin this when what the partition has on its way is done. Raises what that one raised."""
        before = self._on_the_way.pop(part, None)
        if before is not None:
            before.result()
        self._on_the_way[part] = self._threads.submit(self._run, work)

    def settle(self) -> None:
        """Wait for all that is on its way. Raises what one of them raised."""
        on_the_way, self._on_the_way = self._on_the_way, {}
        for one in on_the_way.values():
            one.result()

    def close(self) -> None:
        """Wait for what has begun, whatever becomes of it; the rest is dropped."""
        self._threads.shutdown(cancel_futures=True)
        while not self._lines.empty():
            self._lines.get().close()

    def _run(self, work: Work) -> None:
        line = self._lines.get()  # a batch keeps its connection to the end; see runtime.redis.Line
        try:
            work(line)
        finally:
            self._lines.put(line)
