"""Exit codes of every command, in one table, and how a failure is shown: one sentence, one remedy, its code.

`failures` has what each expected failure means.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import typer
from rich.markup import escape

from orderflow.cli.output import errors


class Exit(IntEnum):
    """What a process leaves behind for a script."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    UNFIT = 5
    INTERRUPTED = 130


MEANING: Final = {
    Exit.OK: "done",
    Exit.NO: "the answer is no: rejected, not found, or something differs",
    Exit.USAGE: "wrong usage: an option, an argument, a setting or a file",
    Exit.UNREACHABLE: "Kafka or Redis is not there",
    Exit.TIMEOUT: "no answer in time; what was asked may still happen",
    Exit.UNFIT: "the servers are there, but topics or tables are not as they have to be",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
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
    """The sentence and the remedy, on standard error."""
    errors.print(f"[bold red]Error:[/] {escape(failure.message)}", soft_wrap=True)
    errors.print(f"[dim]→ {escape(failure.remedy)}[/]", soft_wrap=True)


def quit_with(code: Exit) -> typer.Exit:
    """To be raised at the end of a command whose answer is not a plain yes."""
    return typer.Exit(int(code))


def parse_json(text: str) -> object:
    """The JSON of a command's data. Raises Refused with the place of the mistake."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(
            f"--json is not JSON: {error.msg} at column {error.colno}",
            """Quote it for the shell, e.g. --json '{"name": "Ada"}'.""",
        ) from None
