"""What verification finds, as data; imported by everybody here, and imports nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """What was compared with what."""

    VIEW = "view"  # Redis with the newest states
    STATE = "state"  # the newest states with the fold of the history
    LAW = "law"  # states with each other


class Kind(StrEnum):
    """In which way it is wrong."""

    MISSING = "missing"  # has to be there, and is not
    DIFFERENT = "different"
    ALIEN = "alien"  # stands there, and nothing accounts for it
    TOTALS = "totals"  # what a user's orders add up to
    POSITION = "position"  # a view claims to be where its topic is not
    GAP = "gap"  # versions of a history are not 1..n
    UNREADABLE = "unreadable"
    BROKEN = "broken"  # a law of conservation


@dataclass(frozen=True, slots=True)
class Drift:
    """One finding. ``where``: the view, the aggregate or the law; ``key``: the aggregate's id or the user's.

    ``stray``: of an alien, the key (without the generation's stem) and member to remove; ``strays``: of
    an order, users under whom it stands and does not belong, of a user, rankings they stand in.
    """

    level: Level
    kind: Kind
    where: str
    key: str
    expected: Any = None
    found: Any = None
    stray: tuple[str, str] | None = None
    strays: tuple[str, ...] = field(default=())

    @property
    def repairable(self) -> bool:
        """Whether `repairing` can mend it: a view can be made from the log, the log from nothing."""
        return self.level is Level.VIEW and self.kind is not Kind.POSITION

    @property
    def sentence(self) -> str:
        """For a line of a log."""
        return f"{self.level} {self.where}: {self.kind} {self.key}"
