"""Generations of a view: which there are, removing one; and the lock of a rebuild.

Which of them is live, previous or under construction stands in `standing`.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from redis.exceptions import RedisError

from readmodels.keys import Keys, rebuild_lock_key
from readmodels.scripts import LOCK
from readmodels.steps import Steps, drive
from runtime.redis import Line, new_line
from runtime.settings import Settings

PAGE: Final = 1_000
"""Keys asked for at once; Redis serves others in between."""

LOCK_MS: Final = 30_000
LOCK_BEAT_S: Final = 5.0
_PASSES: Final = 5  # over keys that a halted worker may still have been writing

_GLOB: Final = re.compile(r"([*?\[\]\\^])")


class RebuildFailed(RuntimeError):
    """A rebuild was refused or given up; the old views serve on, and the message says why."""


class RebuildRunning(RebuildFailed):
    """Another rebuild runs."""


class LockLost(RebuildFailed):
    """The rebuild's lock is somebody else's: Redis was emptied, or this process stood still too long."""


def pages(line: Line, keys: Keys) -> Iterator[list[str]]:
    """The keys of a generation, some at a time; one may come twice, as SCAN has it."""
    yield from _scan(line, keys.stem)


def existing(line: Line, prefix: str, view: str) -> set[int]:
    """Generations of which there is any key."""
    stem = f"{prefix}:{view}:g"
    found: set[int] = set()
    for page in _scan(line, stem):
        for key in page:
            number = key.removeprefix(stem).partition(":")[0]
            if number.isdecimal():
                found.add(int(number))
    return found


def remove(line: Line, keys: Keys) -> int:
    """Remove a generation, some keys at a time; returns how many there were."""
    removed = 0
    for _ in range(_PASSES):
        before = removed
        for page in pages(line, keys):
            if page:
                removed += sum(line.run([("UNLINK", key) for key in page]))
        if removed == before:
            break
    return removed


def _scan(line: Line, begin: str) -> Iterator[list[str]]:
    return line.scan(_GLOB.sub(r"\\\1", begin) + "*", PAGE)


class Lock:
    """One rebuild at a time. Held while the process lives; a killed one's expires after half a minute."""

    def __init__(self, settings: Settings) -> None:
        self._key = rebuild_lock_key(settings.topic_prefix)
        self._token = uuid.uuid4().hex
        self._line = new_line(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="rebuild-lock", daemon=True)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        taken = self._line.run([("SET", self._key, self._token, "NX", "PX", LOCK_MS)])[0]
        if not taken:
            left = self._line.run([("PTTL", self._key)])[0]
            self._line.close()
            raise RebuildRunning(
                f"another rebuild runs. Wait for it; if it was killed, its lock {self._key} expires"
                f" within {max(0, int(left)) / 1000:.0f} s."
            )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            drive(self._line, self._hold(0))
        except RedisError:  # it expires by itself; the error that led here is the one to tell
            if error is None:
                raise
        finally:
            self._line.close()

    def require(self) -> None:
        """Raises LockLost."""
        with self._turn:
            held = drive(self._line, self._hold(LOCK_MS))
        if not held:
            raise LockLost(LockLost.__doc__)

    def _hold(self, milliseconds: int) -> Steps[bool]:
        replies = yield [LOCK.call([self._key], self._token, milliseconds)]
        return bool(replies[0])

    def _beat(self) -> None:
        while not self._stop.wait(LOCK_BEAT_S):
            try:
                self.require()
            except (RedisError, OSError, LockLost):  # the rebuild itself asks before it switches
                continue
