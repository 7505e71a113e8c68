"""How far a partition is: which offset may be committed while its events end in any order. Pure.

For `runtime.lanes`. The invariant: nothing at or behind the committed offset was given up or forgotten,
whatever is killed.
"""

from collections import deque


class Progress:
    """One partition. Offsets begin in ascending order, with gaps: control records have offsets, too."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._begun: deque[int] = deque()  # those that have ended stay until they come first
        self._next: int | None = None
        self._committed: int | None = None
        self.size = 0
        """Bytes of what has begun and not ended, as far as it was told."""

    @property
    def unfinished(self) -> int:
        """How many have begun and not ended."""
        return len(self._open)

    @property
    def held(self) -> int:
        """How many a crash would repeat: the first unfinished one and all that begun behind it."""
        return len(self._begun)

    def begin(self, offset: int) -> None:
        """An event was read."""
        self._open.add(offset)
        self._begun.append(offset)
        self._next = offset + 1

    def end(self, offset: int) -> None:
        """All that follows from it is on the broker."""
        self._open.discard(offset)
        while self._begun and self._begun[0] not in self._open:
            self._begun.popleft()

    def due(self) -> int | None:
        """The offset to commit, that of the first event that has not ended; None if it is committed."""
        first = self._begun[0] if self._begun else self._next
        return None if first == self._committed else first

    def committed(self, offset: int) -> None:
        """The broker has it."""
        self._committed = offset
