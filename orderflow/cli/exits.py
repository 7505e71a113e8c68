"""Exit codes of every command, in one table, and how a failure is shown: one sentence, one remedy, its code.

`failures` has what each expected failure means.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import typer

from orderflow.cli.output import Styled, errors


class Exit(IntEnum):
    """What a process leaves behind for a script."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    UNFIT = 5
    BUG = 70
    UNWRITTEN = 74
    INTERRUPTED = 130
    CLOSED = 141


MEANING: Final = {
    Exit.OK: "done",
    Exit.NO: "the answer is no: rejected, not found, or something differs",
    Exit.USAGE: "wrong usage: an option, an argument, a setting or a file",
    Exit.UNREACHABLE: "Kafka or Redis is not there",
    Exit.TIMEOUT: "no answer in time; what was asked may still happen",
    Exit.UNFIT: "the servers are there, but topics or tables are not as they have to be",
    Exit.BUG: "a bug in orderflow; its traceback is in a file",
    Exit.UNWRITTEN: "standard output cannot be written; what was asked may have been done",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
    Exit.CLOSED: "the reader of standard output went away, as `head` does",
}

EPILOG: Final = "Exit codes: " + "; ".join(f"{int(code)} {text}" for code, text in MEANING.items())


@dataclass(frozen=True, slots=True)
class Failure:
    """An expected failure as it is shown."""

    code: Exit
    message: str
    remedy: str


class Refused(Exception):
    """A command line that cannot be followed, or an answer that is no; carries what is to be shown."""

    def __init__(self, message: str, remedy: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.failure = Failure(code, message, remedy)


def show(failure: Failure) -> None:
    """Print the sentence and the remedy on standard error."""
    errors.say(Styled("Error:", "bold red"), f" {failure.message}")
    errors.say(Styled(f"→ {failure.remedy}", "dim"))


def quit_with(code: Exit) -> typer.Exit:
    """Return what a command raises at its end when its answer is not a plain yes."""
    return typer.Exit(int(code))
