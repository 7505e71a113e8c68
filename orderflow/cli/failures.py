"""What each expected failure means to a person: a sentence, a remedy and an exit code of `exits`.

Imported when something has gone wrong, as it knows the exceptions of the whole application. Anything that
does not stand here is a bug and keeps its traceback.
"""

from typing import Final

import redis
from confluent_kafka import KafkaError, KafkaException

from eventstore import (
    EventStoreError,
    IndexStalled,
    KeysStalled,
    ReplayStalled,
    StreamNotFound,
    UnknownStream,
    VersionNotFound,
)
from orderflow.cli.exits import Exit, Failure, Refused
from orderflow.dead_letters import LetterNotFound, LetterRefused
from orderflow.forgetting import DeadLettersStalled
from orderflow.servers import ServersNotFound
from orderflow.shop.retail_file import NotOnlineRetail
from payments.role import GatewayNotConfigured
from readmodels import RebuildFailed, RebuildRunning
from readmodels.filling import MemoryLost, Stalled
from readmodels.generations import LockLost
from readmodels.mending import Restless
from runtime.client import CommandParked, CommandTooLarge, NotDelivered, OutcomeTimeout
from runtime.embedded import EmbeddedServerError
from runtime.kafka import KafkaNotConfigured
from runtime.redis import RedisNotConfigured
from runtime.topic_admin import TopicsUnfit
from runtime.waiting import NoReply
from sync import TargetUnfit

EXPECTED: Final = (
    Refused,
    ServersNotFound,
    KafkaNotConfigured,
    EmbeddedServerError,
    KafkaException,
    redis.RedisError,
    RedisNotConfigured,
    GatewayNotConfigured,
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
    NoReply,
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
        case GatewayNotConfigured():
            return Failure(Exit.UNREACHABLE, str(error), "docs/PAYMENTS.md says how.")
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
        case OutcomeTimeout() | NoReply() | TimeoutError():
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
