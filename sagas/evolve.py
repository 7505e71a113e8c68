"""A saga after an event. Pure; what may happen when is decided in sagas/decide.py."""

from dataclasses import dataclass
from typing import Any, assert_never

from msgspec.structs import replace

from sagas import marks
from schemas.saga import (
    REFUSED,
    SagaAnswered,
    SagaCompensated,
    SagaCompensationOrdered,
    SagaCompensationStarted,
    SagaCompleted,
    SagaEvent,
    SagaFailed,
    SagaNeedsOperator,
    SagaResolved,
    SagaRetried,
    SagaStarted,
    SagaState,
    SagaStatus,
    SagaStepCompensated,
    SagaStepCompensationFailed,
    SagaStepCompensationStarted,
    SagaStepCompleted,
    SagaStepFailed,
    SagaStepRetried,
    SagaStepStarted,
    StepState,
    StepStatus,
)


@dataclass(frozen=True, slots=True)
class _After:
    """A saga at the time of an event; each method gives it with something changed."""

    saga: SagaState
    at_ms: int

    def with_(self, **changes: Any) -> SagaState:
        return replace(self.saga, updated_at_ms=self.at_ms, **changes)

    def ended(self, status: SagaStatus, **changes: Any) -> SagaState:
        """Nothing more is waited for."""
        return self.with_(status=status, wakes_at_ms=None, **changes)

    def step(self, name: str, **changes: Any) -> SagaState:
        return self.with_(steps=_changed(self.saga, name, **changes))

    def waiting(self, name: str, for_ms: int, **changes: Any) -> SagaState:
        """With a step changed and an appointment made."""
        return self.with_(
            steps=_changed(self.saga, name, **changes),
            timer=self.saga.timer + 1,
            wakes_at_ms=self.at_ms + for_ms,
        )


def _changed(saga: SagaState, name: str, **changes: Any) -> tuple[StepState, ...]:
    return tuple(replace(s, **changes) if s.name == name else s for s in saga.steps)


def step_of(saga: SagaState, name: str) -> StepState | None:
    """A step that has begun."""
    return next((step for step in saga.steps if step.name == name), None)


def evolve(saga: SagaState | None, event: SagaEvent, at_ms: int) -> SagaState:
    """The saga after the event; ``at_ms`` is its time, epoch milliseconds UTC."""
    if isinstance(event, SagaStarted):
        return SagaState(
            event.saga,
            SagaStatus.RUNNING,
            event.input,
            at_ms,
            at_ms,
            correlation_id=event.correlation_id,
            scope=event.scope,
            made_by=event.made_by,
        )
    assert saga is not None, "every other event is one of a saga that was started"
    after = _After(saga, at_ms)
    match event:
        case SagaStepStarted(step, count, timeout_ms):
            started = StepState(step, StepStatus.RUNNING, marks.asked(count), at_ms)
            return _After(replace(saga, steps=(*saga.steps, started)), at_ms).waiting(
                step, timeout_ms
            )
        case SagaAnswered():
            return _answered(after, event)
        case SagaStepRetried():
            return _retried(after, event)
        case SagaStepCompleted(name, number, answer):
            answers = marks.with_mark(begun(saga, name).answers, number, answer)
            return after.step(name, status=StepStatus.COMPLETED, answers=answers, ended_at_ms=at_ms)
        case SagaStepFailed():
            return _step_failed(after, event)
        case SagaCompensationStarted(code, message):
            return after.with_(status=SagaStatus.COMPENSATING, code=code, message=message)
        case SagaStepCompensationStarted(name, asked, timeout_ms):
            return after.waiting(
                name,
                timeout_ms,
                status=StepStatus.COMPENSATING,
                undo_answers=asked,
                undo_attempt=1,
                undo_started_at_ms=at_ms,
                undo_ended_at_ms=None,
            )
        case SagaStepCompensated(name, number, answer):
            undone = marks.with_mark(begun(saga, name).undo_answers, number, answer)
            changed = after.step(
                name, status=StepStatus.COMPENSATED, undo_answers=undone, undo_ended_at_ms=at_ms
            )
            return replace(changed, undone=(*saga.undone, name))
        case SagaStepCompensationFailed(name, code, message):
            return after.step(
                name,
                status=StepStatus.NOT_COMPENSATED,
                code=code,
                message=message,
                undo_ended_at_ms=at_ms,
            )
        case SagaCompleted():
            return after.ended(SagaStatus.COMPLETED)
        case SagaFailed(code, message):
            return after.ended(SagaStatus.FAILED, code=code, message=message)
        case SagaCompensated():
            return after.ended(SagaStatus.COMPENSATED)
        case SagaNeedsOperator():
            return after.ended(SagaStatus.NEEDS_OPERATOR)
        case SagaRetried():
            return _resumed(after)
        case SagaCompensationOrdered():
            return after.with_()
        case SagaResolved(by):
            return after.ended(SagaStatus.COMPENSATED, resolved_by=by)
        case _:
            assert_never(event)


def begun(saga: SagaState, name: str) -> StepState:
    """A step that is known to have begun."""
    step = step_of(saga, name)
    assert step is not None, f"step {name} has not begun"
    return step


def _answered(after: _After, event: SagaAnswered) -> SagaState:
    step = begun(after.saga, event.step)
    field = "undo_answers" if event.undo else "answers"
    changes: dict[str, Any] = {
        field: marks.with_mark(getattr(step, field), event.number, event.answer)
    }
    if event.code is not None:
        changes |= {"code": event.code, "message": event.message}
    if event.retry_ms is None:
        return after.step(event.step, **changes)
    due, now = after.saga.wakes_at_ms, after.at_ms
    soonest = event.retry_ms if due is None else min(event.retry_ms, max(0, due - now))
    return after.waiting(event.step, soonest, **changes)


def _retried(after: _After, event: SagaStepRetried) -> SagaState:
    step = begun(after.saga, event.step)
    if event.undo:
        return after.waiting(
            event.step,
            event.timeout_ms,
            status=StepStatus.COMPENSATING,
            undo_answers=marks.ask_anew(step.undo_answers),
            undo_attempt=event.attempt,
            undo_ended_at_ms=None,
        )
    return after.waiting(
        event.step,
        event.timeout_ms,
        answers=marks.ask_again(step.answers),
        attempt=event.attempt,
    )


def _step_failed(after: _After, event: SagaStepFailed) -> SagaState:
    step = begun(after.saga, event.step)
    answers = step.answers
    if event.number is not None:
        answers = marks.with_mark(answers, event.number, REFUSED)
    return after.step(
        event.step,
        status=StepStatus.FAILED,
        answers=answers,
        ended_at_ms=after.at_ms,
        code=event.code,
        message=event.message,
    )


def _resumed(after: _After) -> SagaState:
    """What was given up is to be undone again."""
    if after.saga.status is not SagaStatus.NEEDS_OPERATOR:
        return after.with_()
    steps = tuple(
        replace(step, status=StepStatus.COMPLETED)
        if step.status is StepStatus.NOT_COMPENSATED
        else step
        for step in after.saga.steps
    )
    return after.with_(status=SagaStatus.COMPENSATING, steps=steps)
