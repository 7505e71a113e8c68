"""Brings the live generation of a view and the one that is rebuilt to where they can be compared.

Implements `comparison.Stage`. Normally the projectors bring the live one there by themselves; if none runs,
the rebuild feeds it: a record that is applied twice changes nothing, and a position never goes back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from readmodels import positions
from readmodels.filling import Filling, Note
from readmodels.generations import Lock, RebuildFailed
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.preflight import watermarks
from readmodels.steps import drive
from readmodels.views import View
from runtime.settings import Settings

LIVE_CATCHES_UP_S: Final = 10.0
"""How long the live view may stand still before the rebuild feeds it."""

LOOK_EVERY_S: Final = 0.05


class LiveBehind(RebuildFailed):
    """The live view does not get to where it could be compared."""


class Staging:
    """One view. ``feeds``: whether the live generation may be written to."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        live: Keys,
        filling: Filling,
        *,
        lock: Lock,
        feeds: bool,
    ) -> None:
        self._settings = settings
        self._view = view
        self._live = live
        self._filling = filling
        self._line = filling.line
        self._lock = lock
        self._feeds = feeds

    def meet(self) -> dict[str, int]:
        """See `comparison.Stage.meet`. Raises LiveBehind, and what filling raises."""
        self._lock.require()
        targets = self._filling.targets(self._view)
        last, moved_at = -1, time.monotonic()
        while behind := self._behind(targets):
            if behind != last:
                last, moved_at = behind, time.monotonic()
            elif time.monotonic() - moved_at > LIVE_CATCHES_UP_S:
                self._feed(targets, behind)
                break
            time.sleep(LOOK_EVERY_S)
        return {positions.field(part): at for part, at in sorted(targets.items())}

    def advance(self, note: Note) -> None:
        """See `comparison.Stage.advance`. Raises what filling raises."""
        self._filling.noting(note)
        try:
            marks = watermarks(self._settings, [self._view])
            self._filling.read_to({part: high for part, (_, high) in marks.items()})
        finally:
            self._filling.noting(None)

    def _behind(self, targets: Mapping[TopicPart, int]) -> int:
        (at,) = drive(self._line, positions.read([self._live]))
        return sum(max(0, target - at.get(part, 0)) for part, target in targets.items())

    def _feed(self, targets: Mapping[TopicPart, int], behind: int) -> None:
        if not self._feeds:
            raise LiveBehind(
                f"not compared: the live view is {behind} offsets behind; does a projector run?"
            )
        marks = watermarks(self._settings, [self._view])
        with Filling(
            self._settings, {self._view: self._live}, self._line, lambda _: None
        ) as filling:
            filling.begin({part: low for part, (low, _) in marks.items()})
            filling.read_to(targets)
