"""What each expected failure means to a person: a sentence, a remedy and an exit code of `exits`.

Imported when something has gone wrong, as it knows the exceptions of the whole application. Any other
exception is a bug.
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
from orderflow.cli.streams import InputUnreadable
from orderflow.dead_letters import LetterNotFound, LetterRefused
from orderflow.forgetting import DeadLettersStalled
from orderflow.servers import ServersNotFound
from orderflow.shop.retail_file import NotOnlineRetail
from payments.role import GatewayNotConfigured
from readmodels import RebuildFailed, RebuildRunning
from readmodels.filling import MemoryLost, Stalled
from readmodels.generations import LockLost
from readmodels.mending import Restless
from readmodels.unreadable import ViewUnreadable
from runtime.client import CommandParked, CommandTooLarge, NotDelivered, OutcomeTimeout
from runtime.embedded import EmbeddedServerError
from runtime.kafka import KafkaNotConfigured
from runtime.redis import RedisNotConfigured
from runtime.topic_admin import TopicsUnfit
from runtime.waiting import NoReply
from sync import TargetUnfit

_DOCTOR: Final = "`orderflow doctor` says what is missing."
_REBUILD: Final = (
    "Make the views again with `orderflow rebuild`; of an index `orderflow indexer --rebuild`."
)
_UP: Final = "Start servers with `orderflow up`, or set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL."


def explain(error: BaseException) -> Failure | None:
    """Return what an expected failure means and what to do about it; None for a bug."""
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
        case ViewUnreadable():
            return Failure(Exit.UNFIT, str(error), _REBUILD)
        case redis.ResponseError() if "WRONGTYPE" in str(error):
            return Failure(Exit.UNFIT, f"Redis: {error}", _REBUILD)
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
        case InputUnreadable():
            return Failure(Exit.USAGE, str(error), "Name a file instead, as @FILE.")
        case OSError(filename=None):
            return Failure(Exit.USAGE, str(error), _DOCTOR)
        case OSError():
            return Failure(Exit.USAGE, f"{error.filename}: {error.strerror}", "Look at the path.")
        case _:
            return None


_SETTINGS: Final = frozenset({KafkaError._INVALID_ARG, KafkaError._CONFLICT})


def _kafka(error: KafkaException) -> Failure:
    cause = error.args[0] if error.args else None
    if isinstance(cause, KafkaError):
        if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            message = f"a topic is missing: {cause.str()}"
            return Failure(Exit.UNFIT, message, "Create the topics with `orderflow topics apply`.")
        if cause.code() in _SETTINGS:
            return Failure(Exit.USAGE, f"Kafka: {cause.str()}", "Correct the KAFKA_… settings.")
        return Failure(Exit.UNREACHABLE, f"Kafka: {cause.str()}", _DOCTOR)
    return Failure(Exit.UNREACHABLE, f"Kafka: {error}", _DOCTOR)
