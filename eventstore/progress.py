"""Of reading up to an end: how far it is, and whether it moves at all."""

import time
from collections.abc import Callable
from typing import Final

from readmodels import Progress

STALLED_S: Final = 60.0
"""Six times as long as a dead processor's transaction can stay open."""

TELL_EVERY_S: Final = 0.2

OnProgress = Callable[[Progress], None]


class Watch:
    """Tells of progress, and raises when there is none for a minute."""

    def __init__(
        self, start: int, end: int, stalled: type[Exception], on_progress: OnProgress | None
    ) -> None:
        self._start = self._at = start
        self._total = max(end - start, 0)
        self._stalled = stalled
        self._on_progress = on_progress
        self._records = 0
        self._began = self._moved_at = time.monotonic()
        self._told_at = 0.0

    def moved(self, at: int, records: int) -> None:
        """The sum of the offsets is ``at``, after so many more records. Raises what it was told to."""
        now = time.monotonic()
        self._records += records
        if at != self._at:
            self._at, self._moved_at = at, now
        elif now - self._moved_at > STALLED_S:
            raise self._stalled(self._stalled.__doc__)
        if now - self._told_at > TELL_EVERY_S:
            self._told_at = now
            self._tell(min(max(at - self._start, 0), self._total))

    def done(self) -> None:
        """The end is reached."""
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        if self._on_progress is not None:
            seconds = max(time.monotonic() - self._began, 1e-6)
            self._on_progress(Progress(done, self._total, self._records / seconds))
