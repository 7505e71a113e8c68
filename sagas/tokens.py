"""The token by which an answer names the command that it answers: ``step/number``, ``undo/step/number``."""

from dataclasses import dataclass
from typing import Final

_UNDO: Final = "undo/"


@dataclass(frozen=True, slots=True)
class Token:
    """Command ``number`` (from 0) of a step, or the one that undoes it."""

    step: str
    number: int
    undo: bool = False

    def __str__(self) -> str:
        return f"{_UNDO if self.undo else ''}{self.step}/{self.number}"


def parse_token(text: str) -> Token | None:
    """None for what is no token: it came from elsewhere."""
    step, slash, number = text.removeprefix(_UNDO).rpartition("/")
    if not (slash and step and number.isascii() and number.isdigit() and len(number) <= 6):
        return None
    return Token(step, int(number), text.startswith(_UNDO))
