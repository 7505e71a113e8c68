"""Erase what people's data would otherwise stay in: copies that nobody uses, and records of idle partitions.

A copy of a partition that went to another processor is never updated again, so it would keep names and keys
for ever. And Kafka compacts only segments that are closed, and closes one only when a later record comes: on
a partition where no user is written any more, a replaced record would stay for ever, too.
"""

import fcntl
import logging
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from schemas.ids import PART_SEPARATOR
from schemas.topics import ERASED_WITHIN_MS, PERSONAL, TOMBSTONE_RETENTION_MS

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3_600.0
FIRST_LOOK_S: Final = 60.0
"""After the start, so that what is assigned is in use by then."""

ROLL_EVERY_MS: Final = 6 * 3_600_000
"""A partition with people's data on which nothing was written for so long gets a record that says nothing."""

ROLL_KEY: Final = f"roll{PART_SEPARATOR}segment".encode()
"""Key of that record, a tombstone. It names a part of no aggregate, so every reader passes it."""


class AbandonedCopies:
    """Removes copies below a role's folder that no living process uses, when they are old enough."""

    def __init__(self, directory: Path) -> None:
        """``directory``: this process' own slot."""
        self._mine = directory
        self._look_at = time.monotonic() + FIRST_LOOK_S

    def remove_if_due(self, in_use: Collection[Path]) -> None:
        """Look once in a while. ``in_use``: the copies that this process has open."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self.remove(in_use)

    def remove(self, in_use: Collection[Path]) -> None:
        """Remove what is old. Another slot is looked into only while no process holds its lock."""
        for copy in _old_copies(self._mine):
            if copy not in in_use:
                _remove(copy)
        for lock in self._mine.parent.glob("*.lock"):
            slot = lock.with_suffix("")
            if slot == self._mine or not slot.exists():
                continue
            with lock.open("a+") as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                for copy in _old_copies(slot):
                    _remove(copy)


def needs_record(written_at_ms: int | None, rolled_at_ms: int, now_ms: int) -> bool:
    """True if a segment of a partition would stay open. ``written_at_ms``: of the newest record that the copy
    has, None for an empty one; ``rolled_at_ms``: of the last record that was written for this reason.
    """
    newest = max(written_at_ms or now_ms, rolled_at_ms)
    return now_ms - newest >= ROLL_EVERY_MS


def life_ms(aggregate: str) -> int:
    """How long a copy is kept that nobody uses. One of older states is not trusted any more."""
    return ERASED_WITHIN_MS if aggregate in PERSONAL else TOMBSTONE_RETENTION_MS // 2


def _old_copies(slot: Path) -> Iterator[Path]:
    """``<slot>/<prefix>/<aggregate>-<partition>``."""
    for copy in slot.glob("*/*-*"):
        aggregate = copy.name.rpartition("-")[0]
        written = max((file.stat().st_mtime for file in copy.rglob("*")), default=0.0)
        if copy.is_dir() and (time.time() - written) * 1_000 > life_ms(aggregate):
            yield copy


def _remove(copy: Path) -> None:
    shutil.rmtree(copy)
    logger.info("removed the local copy %s, which nobody uses", copy)
