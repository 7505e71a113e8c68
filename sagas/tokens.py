"""The token by which an answer names the command that it answers: ``step/number``, ``undo/step/number``,
with the letter of the command id behind it (schemas/saga.py), as in ``reserveInventory/0B``.
"""

import re
from dataclasses import dataclass
from typing import Final

_UNDO: Final = "undo/"
_number: Final = re.compile(r"([0-9]{1,6})([A-Z]?)").fullmatch


@dataclass(frozen=True, slots=True)
class Token:
    """Command ``number`` (from 0) of a step, or the one that undoes it. ``mark``: under which of its
    ids; empty where others answer, who were not asked by a command.
    """

    step: str
    number: int
    undo: bool = False
    mark: str = ""

    def __str__(self) -> str:
        return f"{_UNDO if self.undo else ''}{self.step}/{self.number}{self.mark}"


def parse_token(text: str) -> Token | None:
    """None for what is no token: it came from elsewhere."""
    step, _, asked = text.removeprefix(_UNDO).rpartition("/")
    found = _number(asked)
    if not step or found is None:
        return None
    return Token(step, int(found[1]), text.startswith(_UNDO), found[2])
