"""The view `sagas`: how every saga stands, step by step, and all of them by status.

One ranking holds all statuses: a score is the status' rank and the time of the last change, so a saga
is in one place of it, whatever it was before.
"""

from __future__ import annotations

from typing import Final

import msgspec

from readmodels.answers import SagaStepAnswer
from readmodels.documents import Collection, Document
from readmodels.records import flat
from schemas.saga import (
    ACCEPTED,
    NOT_ASKED,
    NOTHING_TO_DO,
    REFUSED,
    SagaState,
    SagaStatus,
    StepState,
)

_decode: Final = msgspec.json.Decoder(SagaState).decode
_encode: Final = msgspec.json.Encoder().encode

COLLECTION: Final = Collection("saga", ranking="by-status")

RANKS: Final = {
    SagaStatus.NEEDS_OPERATOR: 0,
    SagaStatus.COMPENSATING: 1,
    SagaStatus.RUNNING: 2,
    SagaStatus.FAILED: 3,
    SagaStatus.COMPENSATED: 4,
    SagaStatus.COMPLETED: 5,
}
SPAN_MS: Final = 10**14
"""Each rank has room for the times of 3,000 years; a double is exact far beyond six of them."""


def scores_of(status: SagaStatus) -> tuple[int, int]:
    """Lowest and highest score of the sagas that stand so."""
    lowest = RANKS[status] * SPAN_MS
    return lowest, lowest + SPAN_MS - 1


def project(saga_id: str, version: int, state: bytes) -> Document:
    """Pure. Raises msgspec.MsgspecError for what is no saga's state."""
    saga = _decode(state)
    if not 0 <= saga.updated_at_ms < SPAN_MS:
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
    return Document(fields, score=scores_of(saga.status)[0] + saga.updated_at_ms)


def step_answer(step: StepState) -> SagaStepAnswer:
    """A step without its answers one by one."""
    return SagaStepAnswer(
        name=step.name,
        status=step.status.value,
        commands=len(step.answers),
        accepted=_count(step.answers, ACCEPTED + NOTHING_TO_DO),
        refused=_count(step.answers, REFUSED),
        attempt=step.attempt,
        started_at_ms=step.started_at_ms,
        ended_at_ms=step.ended_at_ms,
        code=step.code,
        message=step.message,
        undo_commands=sum(mark != NOT_ASKED for mark in step.undo_answers),
        undone=_count(step.undo_answers, ACCEPTED + NOTHING_TO_DO),
        undo_attempt=step.undo_attempt,
        undo_started_at_ms=step.undo_started_at_ms,
        undo_ended_at_ms=step.undo_ended_at_ms,
    )


def _count(answers: str, wanted: str) -> int:
    return sum(answers.count(mark) for mark in wanted)
