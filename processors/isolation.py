"""Which commands of a batch that cannot be written are to blame. Pure.

A batch that fails for a reason of its content is read again in halves, down to one record; that record is put
aside, and batches grow again. The invariant: only a record whose batch of one was refused for its content is
put aside. A broker that is away, or a processor that is fenced, blames no record.
"""

import logging
from typing import Final

from runtime.refusals import is_of_content

logger = logging.getLogger(__name__)

PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


class Isolation:
    """Failures of the batches of one process, in a row."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.room = most
        """Commands that the next batch may have."""
        self._failures = 0

    @property
    def active(self) -> bool:
        """True while batches are smaller than usual."""
        return self.room < self._most or self.room == 1

    def failed(self, commands: int, cause: BaseException | None, *, more: bool = False) -> bool:
        """Note a batch that failed; True if its only command is to be put aside. ``more``: the batch had
        records beside those of its commands.
        """
        self._failures += 1
        if not is_of_content(cause):
            return False
        if commands == 1 and not more:
            logger.error("one record is put aside: what follows from it is refused: %s", cause)
            return True
        if not self.active:
            logger.warning("a batch is refused for its content, and read again in parts: %s", cause)
        self.room = max(1, min(self.room, commands) // 2)
        return False

    def succeeded(self) -> None:
        """Note a batch that is committed."""
        self._failures = 0
        self.room = min(self._most, self.room * 2)

    def pause_s(self) -> float:
        """Return how long to wait before reading again; longer after each failure in a row."""
        if self._failures < 2:
            return 0.0
        doubled: int = 1 << min(self._failures - 2, 10)
        return min(PAUSE_S * doubled, LONGEST_PAUSE_S)
