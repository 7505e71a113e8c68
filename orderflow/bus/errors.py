"""What the bus raises instead of an answer: one exception a reason, each with a stable code.

A rejection is not here: it is an answer (`schemas.records.Outcome`, ``accepted`` false). The codes are as
stable as those of rejections: never renamed, never used for something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final


class BusCode(StrEnum):
    """Every reason for which there is no answer."""

    NO_HANDLER = "no_handler"  # nobody has registered this command or query
    DUPLICATE_HANDLER = "duplicate_handler"  # somebody has registered it already
    INVALID_DATA = "invalid_data"  # a field is missing, of the wrong type or out of range
    UNAVAILABLE = "unavailable"  # what carries the message is not there
    TIMEOUT = "timeout"  # no answer in time; the command may still be decided


class BusError(Exception):
    """Base of all of them. ``retriable``: the same again, with the same id, may get an answer."""

    code: ClassVar[BusCode]
    retriable: ClassVar[bool] = False


class NoHandler(BusError, LookupError):
    """A command or query that nobody has registered. ``similar``: names it may be meant for."""

    code = BusCode.NO_HANDLER

    def __init__(self, kind: str, name: str, similar: Sequence[str] = (), hint: str = "") -> None:
        meant = f", did you mean {' or '.join(similar)}?" if similar else ""
        super().__init__(f"no handler for {kind} {name!r}{meant}{hint}")
        self.kind = kind
        self.name = name
        self.similar: Final = tuple(similar)


class DuplicateHandler(BusError, ValueError):
    """Two handlers for one message: which one answers would depend on the order of imports."""

    code = BusCode.DUPLICATE_HANDLER

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} is registered already: a message has one handler")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field: its path, e.g. ``lines.3.quantity``, and a sentence for a person."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidMessage(BusError, ValueError):
    """A message that would be refused whoever reads it; nothing was sent. ``problems``: all that is wrong."""

    code = BusCode.INVALID_DATA

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{name} is invalid: {'; '.join(map(str, problems))}")
        self.name = name
        self.problems: Final = tuple(problems)


class Unavailable(BusError, ConnectionError):
    """What carries the message is not there. The message has the cause."""

    code = BusCode.UNAVAILABLE
    retriable = True


class CallTimeout(BusError, TimeoutError):
    """No answer in time. A command may still be decided: ask again with the same command id."""

    code = BusCode.TIMEOUT
    retriable = True


class CallParked(CallTimeout):
    """No outcome until an operator settles a dead letter: the command, or one before it of its aggregate,
    could not be judged. Ask again later with the same command id.
    """

    retriable = False
