"""Exit codes of every command, in one table, and what each expected failure means to a person.

A failure that stands here ends in one sentence, one remedy and its code; anything else is a bug and
keeps its traceback.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import redis
import typer
from confluent_kafka import KafkaError, KafkaException
from rich.markup import escape

from eventstore import (
    EventStoreError,
    IndexStalled,
    KeysStalled,
    ReplayStalled,
    StreamNotFound,
    UnknownStream,
    VersionNotFound,
)
from orderflow.cli.output import errors
from orderflow.dead_letters import LetterNotFound, LetterRefused
from orderflow.forgetting import DeadLettersStalled
from orderflow.servers import ServersNotFound
from orderflow.shop.retail_file import NotOnlineRetail
from readmodels import RebuildFailed, RebuildRunning
from readmodels.filling import MemoryLost, Stalled
from readmodels.generations import LockLost
from readmodels.mending import Restless
from runtime.client import CommandParked, CommandTooLarge, NotDelivered, OutcomeTimeout
from runtime.embedded import EmbeddedServerError
from runtime.kafka import KafkaNotConfigured
from runtime.redis import RedisNotConfigured
from runtime.topic_admin import TopicsUnfit
from sync import TargetUnfit


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


EXPECTED: Final = (
    Refused,
    ServersNotFound,
    KafkaNotConfigured,
    EmbeddedServerError,
    KafkaException,
    redis.RedisError,
    RedisNotConfigured,
    TopicsUnfit,
    RebuildFailed,
    RebuildRunning,
    LockLost,
    Stalled,
    MemoryLost,
    Restless,
    EventStoreError,
    IndexStalled,
    ReplayStalled,
    KeysStalled,
    DeadLettersStalled,
    OutcomeTimeout,
    NotDelivered,
    CommandTooLarge,
    LetterNotFound,
    LetterRefused,
    NotOnlineRetail,
    TargetUnfit,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    TimeoutError,
)
"""Failures that are shown without a traceback."""

_DOCTOR: Final = "`orderflow doctor` says what is missing."
_UP: Final = "Start servers with `orderflow up`, or set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL."


def explain(error: BaseException) -> Failure:
    """What an expected failure means and what to do about it."""
    match error:
        case Refused():
            return error.failure
        case ServersNotFound() | KafkaNotConfigured() | RedisNotConfigured():
            return Failure(Exit.UNREACHABLE, str(error), _UP)
        case RebuildRunning():
            return Failure(Exit.NO, "another rebuild runs", "Wait for it; it ends by itself.")
        case RebuildFailed() | LockLost() | Stalled() | MemoryLost():
            return Failure(Exit.NO, str(error), "The views that were live serve on. Rebuild again.")
        case Restless():
            return Failure(Exit.TIMEOUT, str(error), "Try again; it is written to without a pause.")
        case StreamNotFound() | VersionNotFound():
            return Failure(
                Exit.NO, str(error), "`orderflow history AGGREGATE ID` shows what there is."
            )
        case UnknownStream():
            return Failure(Exit.USAGE, str(error), "`orderflow history --help` has an example.")
        case EventStoreError():
            return Failure(Exit.NO, str(error), _DOCTOR)
        case IndexStalled() | ReplayStalled() | KeysStalled() | DeadLettersStalled():
            return Failure(Exit.TIMEOUT, str(error), _DOCTOR)
        case EmbeddedServerError():
            return Failure(Exit.UNREACHABLE, str(error), _DOCTOR)
        case KafkaException():
            return _kafka(error)
        case redis.RedisError():
            return Failure(Exit.UNREACHABLE, f"Redis: {error}", _DOCTOR)
        case TopicsUnfit():
            return Failure(Exit.UNFIT, str(error), "`orderflow topics diff` shows each difference.")
        case TargetUnfit():
            return Failure(Exit.UNFIT, str(error), "docs/SYNC_SQL.md has what a target has to be.")
        case LetterNotFound() | LetterRefused():
            return Failure(Exit.NO, str(error), "`orderflow dead-letters list` shows what is open.")
        case CommandParked():
            return Failure(
                Exit.TIMEOUT, str(error), "`orderflow dead-letters list` shows what holds it."
            )
        case OutcomeTimeout() | TimeoutError():
            return Failure(Exit.TIMEOUT, str(error), _DOCTOR)
        case NotDelivered():
            return Failure(Exit.UNREACHABLE, str(error), _DOCTOR)
        case CommandTooLarge() | NotOnlineRetail():
            return Failure(Exit.USAGE, str(error), "Look at the input.")
        case OSError():
            return Failure(Exit.USAGE, f"{error.filename}: {error.strerror}", "Look at the path.")
        case _:
            raise AssertionError(f"{type(error).__name__} is not in EXPECTED") from error


def _kafka(error: KafkaException) -> Failure:
    cause = error.args[0] if error.args else None
    if isinstance(cause, KafkaError):
        if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            message = f"a topic is missing: {cause.str()}"
            return Failure(Exit.UNFIT, message, "Create the topics with `orderflow topics apply`.")
        return Failure(Exit.UNREACHABLE, f"Kafka: {cause.str()}", _DOCTOR)
    return Failure(Exit.UNREACHABLE, f"Kafka: {error}", _DOCTOR)


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
