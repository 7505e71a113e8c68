"""A saga: events and state on the wire. Key: saga id; for an order placed by one call, the order id.

A saga runs through steps. A step sends commands and has an answer, one character, for each:

    A to Z   asked and not answered yet; the letter says under which of its command ids
    a to z   refused in a way that may pass; to be asked again, under the next id
    +        accepted
    =        refused because there is nothing (more) to do, which is as good
    -        refused

The answers to what undoes a step are kept in the same way; a blank there is a command that had no
effect and needs no undoing. Strings, because an order of 500 lines is answered 500 times.

Events to which others react (sagas/choreography.py) carry the saga's name, and its end the input:
who reads them has nothing else. Their ``signature`` says which order they are about: the ``made_by`` of
every part of it, so that another's saga under the id of a part is known for what it is.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec

from schemas.decoding import Int64
from schemas.vocabulary import OpenVocabulary

ACCEPTED: Final = "+"
NOTHING_TO_DO: Final = "="
REFUSED: Final = "-"
NOT_ASKED: Final = " "


class SagaStarted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A saga of this name begins, with this input. ``correlation_id``: None is the saga id itself.
    ``scope`` stands in the ids of its commands and signs what it makes (schemas/ids.py); None: begun by
    an older release, or barred before it began. ``made_by``: the signature of the saga that it is a part
    of; None: of none.
    """

    saga: str
    input: msgspec.Raw
    correlation_id: str | None = None
    scope: str | None = None
    made_by: str | None = None


class SagaStepStarted(msgspec.Struct, frozen=True):
    """So many commands of a step are sent; answers are expected within ``timeout_ms``."""

    step: str
    commands: Int64
    timeout_ms: Int64


class SagaAnswered(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several commands was answered; ``answer`` as the module says. ``retry_ms``: when it is
    asked again, if it is to be. ``undo``: of a command that undoes the step.
    """

    step: str
    number: Int64
    answer: str
    undo: bool = False
    code: str | None = None
    message: str | None = None
    retry_ms: Int64 | None = None


class SagaStepRetried(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is not answered is asked again, for the ``attempt``-th time. ``undo``: of the undoing."""

    step: str
    attempt: Int64
    timeout_ms: Int64
    undo: bool = False
    saga: str | None = None
    signature: str | None = None


class SagaStepCompleted(msgspec.Struct, frozen=True, omit_defaults=True):
    """All commands of a step are accepted; the last one answered is ``number``."""

    step: str
    number: Int64
    answer: str


class SagaStepFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step cannot be completed: command ``number`` was refused, or (None) not answered in time."""

    step: str
    code: str
    message: str
    number: Int64 | None = None
    saga: str | None = None
    signature: str | None = None


class SagaCompensationStarted(msgspec.Struct, frozen=True):
    """What was done will be undone, the last step first."""

    code: str
    message: str


class SagaStepCompensationStarted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The commands that undo a step are sent; ``asked`` marks which of the step's commands need it."""

    step: str
    asked: str
    timeout_ms: Int64
    saga: str | None = None
    signature: str | None = None


class SagaStepCompensated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step is undone; the last command answered is ``number``."""

    step: str
    number: Int64
    answer: str


class SagaStepCompensationFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step could not be undone after all attempts; the others are."""

    step: str
    code: str
    message: str


class SagaCompleted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every step is done. ``input``: the object that it started from, as raw JSON when it is written."""

    saga: str | None = None
    input: Any = None
    signature: str | None = None


class SagaFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """It came to nothing, and there was nothing to undo."""

    code: str
    message: str
    saga: str | None = None
    signature: str | None = None


class SagaCompensated(msgspec.Struct, frozen=True, omit_defaults=True):
    """It came to nothing, and what had been done is undone: these steps, in this order."""

    undone: tuple[str, ...]
    code: str | None = None
    message: str | None = None
    saga: str | None = None
    signature: str | None = None


class SagaNeedsOperator(msgspec.Struct, frozen=True):
    """These steps could not be undone; a person has to look."""

    steps: tuple[str, ...]


class SagaRetried(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator had it try again."""

    by: str
    note: str | None = None


class SagaCompensationOrdered(msgspec.Struct, frozen=True):
    """An operator had it undone."""

    by: str
    reason: str


class SagaResolved(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator put right by hand what could not be undone."""

    by: str
    note: str
    saga: str | None = None
    signature: str | None = None


SagaEvent = (
    SagaStarted
    | SagaStepStarted
    | SagaAnswered
    | SagaStepRetried
    | SagaStepCompleted
    | SagaStepFailed
    | SagaCompensationStarted
    | SagaStepCompensationStarted
    | SagaStepCompensated
    | SagaStepCompensationFailed
    | SagaCompleted
    | SagaFailed
    | SagaCompensated
    | SagaNeedsOperator
    | SagaRetried
    | SagaCompensationOrdered
    | SagaResolved
)


class SagaStatus(StrEnum):
    """Where a saga stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # came to nothing before anything was done
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    NEEDS_OPERATOR = "needs_operator"


class EndStatus(OpenVocabulary):
    """The words of ``SagaStatus``, as a client reads them: a newer release may have more."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    NEEDS_OPERATOR = "needs_operator"


ENDED: Final = frozenset({SagaStatus.COMPLETED, SagaStatus.FAILED, SagaStatus.COMPENSATED})
"""From here nothing happens by itself."""


class StepStatus(StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    NOT_COMPENSATED = "not_compensated"


class StepState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that has begun. ``code`` and ``message``: the newest refusal. Times are epoch
    milliseconds, UTC.
    """

    name: str
    status: StepStatus
    answers: str
    started_at_ms: Int64
    attempt: Int64 = 1
    ended_at_ms: Int64 | None = None
    code: str | None = None
    message: str | None = None
    undo_answers: str = ""
    undo_attempt: Int64 = 0
    undo_started_at_ms: Int64 | None = None
    undo_ended_at_ms: Int64 | None = None


class SagaState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole saga after an event. ``code`` and ``message``: why it was not completed.

    ``wakes_at_ms``: when it goes on if nothing comes before; None: it waits for nothing. ``timer``
    counts these appointments, so that an old one is recognised. ``scope`` and ``made_by``: as in
    ``SagaStarted``.
    """

    saga: str
    status: SagaStatus
    input: msgspec.Raw
    started_at_ms: Int64
    updated_at_ms: Int64
    steps: tuple[StepState, ...] = ()
    correlation_id: str | None = None
    code: str | None = None
    message: str | None = None
    timer: Int64 = 0
    wakes_at_ms: Int64 | None = None
    undone: tuple[str, ...] = ()
    resolved_by: str | None = None
    scope: str | None = None
    made_by: str | None = None


class SagaEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """On ``<prefix>.replies``, for who waits for a saga: how it ended, or that it needs an operator."""

    saga_id: str
    saga: str
    status: EndStatus
    code: str | None = None
    message: str | None = None
    undone: tuple[str, ...] = ()
    ended_at_ms: Int64 = 0


EVENTS: Final[tuple[type[SagaEvent], ...]] = (
    SagaStarted,
    SagaStepStarted,
    SagaAnswered,
    SagaStepRetried,
    SagaStepCompleted,
    SagaStepFailed,
    SagaCompensationStarted,
    SagaStepCompensationStarted,
    SagaStepCompensated,
    SagaStepCompensationFailed,
    SagaCompleted,
    SagaFailed,
    SagaCompensated,
    SagaNeedsOperator,
    SagaRetried,
    SagaCompensationOrdered,
    SagaResolved,
)
