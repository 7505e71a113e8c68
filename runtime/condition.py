"""Log what is broken outside of the process once, and once that it works again. Everybody may import it.

A loop that tries again says the same each time; an outage of a night must not fill the disk.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

QUIET_S: Final = 60.0
"""A line that did not come for so long is news again."""

REMIND_S: Final = 600.0
"""A line that keeps coming is said again this often, with how many were left out."""

MAX_KEYS: Final = 1_000
"""Different lines that are remembered; the oldest is evicted."""

NO_REPETITION: Final = {"no_repetition": True}
"""``extra`` of a line that its writer says once already: ``Repetitions`` lets it through."""

_LIBRARIES: Final = frozenset({"aiokafka", "asyncio", "faust", "librdkafka", "mode", "redis"})
"""Their lines carry ids and times: two that differ in these only are the same."""

_VARIES: Final = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?")


class Condition:
    """Says once that something is broken and once that it is whole again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._fault = ""

    def broken(self, fault: BaseException) -> None:
        """A fault that is new is a warning, a repeated one is not worth a line."""
        text = f"{type(fault).__name__}: {fault}"
        level = logging.DEBUG if text == self._fault else logging.WARNING
        logger.log(level, "%s: %s; trying again until it works", self._what, text)
        self._fault = text

    def whole(self) -> None:
        """Tell that it works again, if it did not."""
        if self._fault:
            logger.info("%s: works again", self._what)
            self._fault = ""


class Repetitions(logging.Filter):
    """Lets a warning through once, and then only as often as a person can read.

    Applies to warnings and worse. Whatever comes first of its kind is logged.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._known: OrderedDict[tuple[str, int, str], _Repeated] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is news. Thread-safe: a handler calls it under its lock."""
        if record.levelno < logging.WARNING or hasattr(record, "no_repetition"):
            return True
        text, now = record.getMessage(), self._clock()
        library = record.name.partition(".")[0] in _LIBRARIES
        key = record.name, record.levelno, _VARIES.sub("#", text) if library else text
        repeated = self._known.pop(key, None) or _Repeated(now)
        self._known[key] = repeated
        if len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)
        if not repeated.is_news(now):
            return False
        if repeated.left_out:
            record.msg = f"{text} ({repeated.left_out:,} times more since it was last said)"
            record.args = None
        repeated.said(now)
        return True


class _Repeated:
    """When a line was said last, when it came last, and how often in between."""

    def __init__(self, now: float) -> None:
        self.left_out = 0
        self._said_at = now - REMIND_S
        self._came_at = now

    def is_news(self, now: float) -> bool:
        """True if it is to be said; counts it if not."""
        before, self._came_at = self._came_at, now
        if now - before >= QUIET_S or now - self._said_at >= REMIND_S:
            return True
        self.left_out += 1
        return False

    def said(self, now: float) -> None:
        """It was said; the count begins at zero."""
        self._said_at, self.left_out = now, 0
