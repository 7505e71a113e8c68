"""The view `sagas`: how every saga stands, step by step, and all of them by status.

One ranking holds all statuses: a score is the status' rank and the time of the last change, so a saga
is in one place of it, whatever it was before.
"""

from __future__ import annotations

from typing import Final

import msgspec

from readmodels.answers import SagaAnswer, SagaStepAnswer
from readmodels.documents import Collection, Document
from readmodels.records import flat
from schemas.decoding import decoder
from schemas.saga import (
    ACCEPTED,
    ENDED,
    NOT_ASKED,
    NOTHING_TO_DO,
    REFUSED,
    SagaState,
    SagaStatus,
    StepState,
)

_decode: Final = decoder(SagaState)
_encode: Final = msgspec.json.Encoder().encode
_steps: Final = decoder(tuple[SagaStepAnswer, ...])

COLLECTION: Final = Collection("saga", ranking="by-status")

RANKS: Final = {
    SagaStatus.NEEDS_OPERATOR: 0,
    SagaStatus.COMPENSATING: 1,
    SagaStatus.RUNNING: 2,
    SagaStatus.FAILED: 3,
    SagaStatus.COMPENSATED: 4,
    SagaStatus.COMPLETED: 5,
}
OPEN: Final = tuple(status for status in RANKS if status not in ENDED)
"""Their ranks follow each other, so one range of scores has them all: each saga once, wherever it moves."""

SPAN_MS: Final = 10**14
"""Each rank has room for the times of 3,000 years; a double is exact far beyond six of them."""


TIME_LIMIT_MS: Final = 10**15
"""Times are below this, as those of orders are."""


def asked_for(status: str | None) -> tuple[SagaStatus, ...]:
    """The statuses a question is about. Raises ValueError naming the one that does not exist."""
    if status is None:
        return OPEN
    if status not in RANKS:
        raise ValueError(f"there is no status {status!r}; there are: {', '.join(RANKS)}")
    return (SagaStatus(status),)


def scores_of(statuses: tuple[SagaStatus, ...]) -> tuple[int, int]:
    """Lowest and highest score of the sagas that stand so; of statuses whose ranks follow each other."""
    return RANKS[statuses[0]] * SPAN_MS, (RANKS[statuses[-1]] + 1) * SPAN_MS - 1


def project(saga_id: str, version: int, state: bytes) -> Document:
    """Pure. Raises msgspec.MsgspecError for what is no saga's state."""
    saga = _decode(state)
    if not 0 <= saga.updated_at_ms < TIME_LIMIT_MS:
        raise msgspec.ValidationError("updated_at_ms is out of range")
    fields = flat(
        version=version,
        saga=saga.saga,
        status=saga.status.value,
        correlation_id=saga.correlation_id or saga_id,
        code=saga.code,
        message=saga.message,
        started_at_ms=saga.started_at_ms,
        updated_at_ms=saga.updated_at_ms,
        wakes_at_ms=saga.wakes_at_ms,
        undone=",".join(saga.undone) or None,
        resolved_by=saga.resolved_by,
        steps=_encode([step_answer(step) for step in saga.steps]).decode(),
    )
    # A command may say a later time than the span has: such a saga is shown, at the end of its status.
    moved_at_ms = min(saga.updated_at_ms, SPAN_MS - 1)
    return Document(fields, score=RANKS[saga.status] * SPAN_MS + moved_at_ms)


def answer(saga_id: str, row: dict[str, str]) -> SagaAnswer | None:
    """What `project` has put into a hash; None of an empty one."""
    if not row:
        return None
    wakes_at_ms = row.get("wakes_at_ms")
    return SagaAnswer(
        saga_id=saga_id,
        version=int(row["version"]),
        saga=row["saga"],
        status=row["status"],
        correlation_id=row["correlation_id"],
        started_at_ms=int(row["started_at_ms"]),
        updated_at_ms=int(row["updated_at_ms"]),
        steps=_steps(row["steps"]),
        undone=tuple(row["undone"].split(",")) if "undone" in row else (),
        code=row.get("code"),
        message=row.get("message"),
        wakes_at_ms=None if wakes_at_ms is None else int(wakes_at_ms),
        resolved_by=row.get("resolved_by"),
    )


def step_answer(step: StepState) -> SagaStepAnswer:
    """A step without its answers one by one."""
    accepted = _count(step.answers, ACCEPTED + NOTHING_TO_DO)
    refused = _count(step.answers, REFUSED)
    return SagaStepAnswer(
        name=step.name,
        status=step.status.value,
        commands=len(step.answers),
        accepted=accepted,
        refused=refused,
        attempt=step.attempt,
        started_at_ms=step.started_at_ms,
        ended_at_ms=step.ended_at_ms,
        waiting=len(step.answers) - accepted - refused,
        code=step.code,
        message=step.message,
        undo_commands=sum(mark != NOT_ASKED for mark in step.undo_answers),
        undone=_count(step.undo_answers, ACCEPTED + NOTHING_TO_DO),
        undo_refused=_count(step.undo_answers, REFUSED),
        undo_attempt=step.undo_attempt,
        undo_started_at_ms=step.undo_started_at_ms,
        undo_ended_at_ms=step.undo_ended_at_ms,
    )


def _count(answers: str, wanted: str) -> int:
    return sum(answers.count(mark) for mark in wanted)
