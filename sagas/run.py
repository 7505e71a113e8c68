"""What happens next in a saga that has begun. Pure, for sagas/decide.py.

It goes through its steps; when one fails for good, it goes back through what was done, the last step
first, and ends compensated, or with an operator. An answer that nobody waits for changes nothing.
Laws: a step starts when the one before it is completed; what may have had an effect is undone exactly
once; a step that cannot be undone does not keep the others from being undone.
"""

from typing import Any, Final, assert_never

import msgspec

from sagas import marks
from sagas.definition import (
    Again,
    Answer,
    AnswerEvent,
    Done,
    NothingToDo,
    Reading,
    Refused,
    Retry,
    SagaDefinition,
    Step,
    Undo,
    Waiting,
)
from sagas.evolve import evolve, step_of
from sagas.messages import CompensateSaga, RecordAnswer, RetrySaga
from sagas.tokens import Token, parse_token
from schemas.ids import scoped_id
from schemas.saga import (
    ACCEPTED,
    NOTHING_TO_DO,
    REFUSED,
    SagaAnswered,
    SagaCompensated,
    SagaCompensationOrdered,
    SagaCompensationStarted,
    SagaCompleted,
    SagaEvent,
    SagaFailed,
    SagaNeedsOperator,
    SagaRetried,
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

TIMED_OUT: Final = "timed_out"


class Run:
    """A saga while it is decided: events are added, and each decision stands on those before it."""

    def __init__(self, saga: SagaState, definition: SagaDefinition, saga_id: str) -> None:
        self.saga = saga
        self.events: list[SagaEvent] = []
        self._definition = definition
        self._id = saga_id

    def emit(self, event: SagaEvent) -> None:
        """Adds what happens. Times do not matter here: no decision looks at them."""
        self.events.append(event)
        self.saga = evolve(self.saga, event, 0)

    @property
    def _signature(self) -> str | None:
        """What the saga signs with, or the one that it is a part of. None: an older release began it."""
        if self._definition.part:
            return self.saga.made_by
        return scoped_id(self._id, self.saga.scope or "")

    @property
    def told(self) -> dict[str, str | None]:
        """What its events say to those who react to them; nothing if nobody does."""
        if not self._definition.tells:
            return {}
        return {"saga": self.saga.saga, "signature": self._signature}

    def _input(self) -> Any:
        return self._definition.input.model_validate_json(bytes(self.saga.input))

    def _running(self) -> StepState | None:
        """The step whose commands, or whose undoing, is waited for."""
        wanted = {
            SagaStatus.RUNNING: StepStatus.RUNNING,
            SagaStatus.COMPENSATING: StepStatus.COMPENSATING,
        }
        status = wanted.get(self.saga.status)
        return next((step for step in self.saga.steps if step.status is status), None)

    # Forward.

    def begin(self, position: int) -> None:
        """The step at this position starts; behind the last one the saga is completed."""
        if position == len(self._definition.steps):
            given = self.saga.input if self._definition.tells else None
            self.emit(SagaCompleted(input=given, **self.told))
            return
        step = self._definition.steps[position]
        count = step.external or len(step.commands(self._id, self._input()))
        if count == 0:  # nothing to ask, as for the payment of a gift
            self.begin(position + 1)
            return
        self.emit(SagaStepStarted(step.name, count, step.retry.timeout(1)))

    def answered(self, command: RecordAnswer, *, from_saga: bool) -> None:
        """An answer: noted if somebody waits for it, without effect if not. ``from_saga``: of another saga,
        which only a step that others take waits for; another order may have a part of this id, and
        anybody a saga under the id of a part of this one.
        """
        token = parse_token(command.token)
        step = step_of(self.saga, token.step) if token else None
        if token is None or step is None:
            return
        given = step.undo_answers if token.undo else step.answers
        mark = given[token.number : token.number + 1]
        if not marks.is_waiting(mark) or token.mark not in ("", mark):
            return  # answered already; or the refusal for which it was put off comes again
        definition = self._definition.step(token.step)
        if from_saga != (definition.external > 0):
            return
        if from_saga and command.made_by != self._signature:
            return
        answer = Answer(
            command.type,
            command.accepted,
            command.code,
            command.message,
            msgspec.convert(command.events, tuple[AnswerEvent, ...]),
            command.repeated,
        )
        if token.undo:
            self._undo_answered(definition, step, token, answer)
        elif self.saga.status is SagaStatus.RUNNING:
            self._step_answered(definition, step, token, definition.read(answer))

    def _step_answered(
        self, definition: Step, step: StepState, token: Token, reading: Reading
    ) -> None:
        mark = step.answers[token.number]
        match reading:
            case Waiting():
                return
            case Refused(code, message, undone=True):
                self.emit(SagaStepFailed(step.name, code, message, token.number, **self.told))
                self.emit(SagaCompensationStarted(code, message))
                self.emit(SagaStepCompensated(step.name, token.number, ACCEPTED))
                self._undo_next()
            case Refused(code, message, to_undo=to_undo):
                self._fail(step.name, code, message, None if to_undo else token.number)
            case Again(code, message) as again:
                if marks.can_be_put_off(mark):
                    self._put_off(token, mark, again, definition.retry.pause(step.attempt))
                else:
                    self._fail(step.name, code, message, token.number)
            case Done() | NothingToDo():
                answer = ACCEPTED if isinstance(reading, Done) else NOTHING_TO_DO
                if marks.is_open(marks.with_mark(step.answers, token.number, answer)):
                    self.emit(SagaAnswered(step.name, token.number, answer))
                    return
                self.emit(SagaStepCompleted(step.name, token.number, answer))
                self.begin(self._definition.position(step.name) + 1)
            case _:
                assert_never(reading)

    def _put_off(
        self, token: Token, mark: str, again: Again | Refused, pause_ms: int | None
    ) -> None:
        """To be asked again under the next id, after the pause; None: when an operator has it so."""
        later = marks.put_off(mark)
        self.emit(
            SagaAnswered(
                token.step, token.number, later, token.undo, again.code, again.message, pause_ms
            )
        )

    def _fail(self, name: str, code: str, message: str, number: int | None = None) -> None:
        self.emit(SagaStepFailed(name, code, message, number, **self.told))
        self._go_back(code, message)

    # Back.

    def _go_back(self, code: str, message: str) -> None:
        """Undoes what was done, if anything was."""
        if self._next_to_undo() is None:
            self.emit(SagaFailed(code, message, **self.told))
            return
        self.emit(SagaCompensationStarted(code, message))
        self._undo_next()

    def _next_to_undo(self) -> tuple[StepState, Undo, str] | None:
        """The last step that is neither undone nor given up, and which of its commands need undoing."""
        settled = (StepStatus.COMPENSATED, StepStatus.NOT_COMPENSATED)
        for step in reversed(self.saga.steps):
            undo = self._definition.step(step.name).undo
            asked = marks.to_undo(step.answers)
            if undo is not None and step.status not in settled and asked.strip():
                return step, undo, asked
        return None

    def _undo_next(self) -> None:
        """The next step back; behind the first one the saga has ended, well or not."""
        found = self._next_to_undo()
        if found is not None:
            step, undo, asked = found
            if step.undo_answers:  # given up before, and taken up by an operator
                self._ask_again(step, 1, undoing=True)
            else:
                timeout = undo.retry.timeout(1)
                self.emit(SagaStepCompensationStarted(step.name, asked, timeout, **self.told))
            return
        left = tuple(s.name for s in self.saga.steps if s.status is StepStatus.NOT_COMPENSATED)
        if left:
            self.emit(SagaNeedsOperator(left))
        else:
            saga = self.saga
            self.emit(SagaCompensated(saga.undone, saga.code, saga.message, **self.told))

    def _undo_answered(
        self, definition: Step, step: StepState, token: Token, answer: Answer
    ) -> None:
        undo = definition.undoing
        # Given up; or an operator has it tried again, and the steps behind it come first.
        given_up = step.status is not StepStatus.COMPENSATING
        mark = step.undo_answers[token.number]
        match undo.read(answer):
            case Waiting():
                return
            case (Refused(code, message) | Again(code, message)) as again:
                if not marks.can_be_put_off(mark):
                    self.emit(SagaAnswered(step.name, token.number, REFUSED, True, code, message))
                    return  # the next appointment gives the step up
                pause_ms = None if given_up else undo.retry.pause(step.undo_attempt)
                self._put_off(token, mark, again, pause_ms)
            case Done() | NothingToDo() as reading:
                given = ACCEPTED if isinstance(reading, Done) else NOTHING_TO_DO
                if not marks.is_done(marks.with_mark(step.undo_answers, token.number, given)):
                    self.emit(SagaAnswered(step.name, token.number, given, True))
                    return
                self.emit(SagaStepCompensated(step.name, token.number, given))
                if not given_up or self._was_the_last_missing():
                    self._undo_next()
            case reading:
                assert_never(reading)

    def _was_the_last_missing(self) -> bool:
        """An answer came late: the saga has waited for an operator, and needs none any more."""
        left = any(step.status is StepStatus.NOT_COMPENSATED for step in self.saga.steps)
        return self.saga.status is SagaStatus.NEEDS_OPERATOR and not left

    # Time, and people.

    def woken(self) -> None:
        """The appointment is due: ask again, or give up."""
        step = self._running()
        if step is None:
            return
        undoing = step.status is StepStatus.COMPENSATING
        asked = step.undo_attempt if undoing else step.attempt
        if asked < self._retry_of(step, undoing).attempts:
            self._ask_again(step, asked + 1, undoing)
        elif undoing:
            code, message = self._why(step, step.undo_answers, "undone")
            self.emit(SagaStepCompensationFailed(step.name, code, message))
            self._undo_next()
        else:
            code, message = self._why(step, step.answers, "answered")
            self._fail(step.name, code, message)

    def _retry_of(self, step: StepState, undoing: bool) -> Retry:
        definition = self._definition.step(step.name)
        return definition.undoing.retry if undoing else definition.retry

    def _ask_again(self, step: StepState, attempt: int, undoing: bool) -> None:
        """For the ``attempt``-th time; others react to the undoing alone."""
        timeout = self._retry_of(step, undoing).timeout(attempt)
        told = self.told if undoing else {}
        self.emit(SagaStepRetried(step.name, attempt, timeout, undoing, **told))

    def _why(self, step: StepState, answers: str, what: str) -> tuple[str, str]:
        """The refusal that stood in the way, or that time is up."""
        waiting = sum(map(marks.is_waiting, answers))
        if step.code is not None and not waiting:
            return step.code, step.message or ""
        return TIMED_OUT, f"{waiting} of {len(answers)} commands were not {what} in time"

    def retried(self, command: RetrySaga) -> None:
        """Asks again at once, with all attempts before it."""
        self.emit(SagaRetried(command.by, command.note))
        running = self._running()
        if running is None:
            self._undo_next()
            return
        self._ask_again(running, 1, running.status is StepStatus.COMPENSATING)

    def ordered_back(self, command: CompensateSaga) -> None:
        """Undoes a saga that runs or is completed; one that is undone already stays so."""
        if self.saga.status not in (SagaStatus.RUNNING, SagaStatus.COMPLETED):
            return
        self.emit(SagaCompensationOrdered(command.by, command.reason))
        running = self._running()
        if running is not None:
            self.emit(
                SagaStepFailed(running.name, command.code, command.reason, number=None, **self.told)
            )
        self._go_back(command.code, command.reason)
