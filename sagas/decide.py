"""What happens next in a saga. Pure: no clock, no ids drawn; deadlines are set by ``evolve``.

A saga goes through its steps; when one fails for good, it goes back through what was done, the last
step first, and ends compensated, or with an operator. An answer that nobody waits for changes
nothing. Laws: a step starts when the one before it is completed; what may have had an effect is
undone exactly once; a step that cannot be undone does not keep the others from being undone.
"""

from collections.abc import Mapping
from typing import Any, Final, assert_never

import msgspec
from pydantic import ValidationError

from commands.aggregate import Decision, Loaded
from sagas import marks
from sagas.definition import (
    Again,
    Answer,
    AnswerEvent,
    Done,
    NothingToDo,
    Reading,
    Refused,
    SagaDefinition,
    Step,
    Undo,
    Waiting,
)
from sagas.evolve import evolve, step_of
from sagas.messages import (
    CompensateSaga,
    RecordAnswer,
    ResolveSaga,
    RetrySaga,
    SagaCommand,
    StartSaga,
    WakeSaga,
)
from sagas.tokens import Token, parse_token
from schemas.records import encode
from schemas.rejections import Code, Rejection
from schemas.saga import (
    ACCEPTED,
    ENDED,
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

MAX_SAGA_ID: Final = 96
"""The ids of a saga's commands begin with its own and have at most 128 characters."""

TIMED_OUT: Final = "timed_out"
NOT_BEGUN: Final = msgspec.Raw(b"null")
"""Input of a saga that was barred before it began."""

Definitions = Mapping[str, SagaDefinition]


def decide(loaded: Loaded, command: SagaCommand, definitions: Definitions) -> Decision:
    """What follows from the command, or why nothing does."""
    saga: SagaState | None = loaded.root
    if isinstance(command, StartSaga):
        return _start(loaded.id, saga, command, definitions)
    if saga is None:
        return _absent(command, definitions)
    run = _Run(saga, definitions[saga.saga], loaded.id)
    match command:
        case RecordAnswer():
            run.answered(command)
        case WakeSaga(timer=timer):
            if timer == saga.timer and saga.wakes_at_ms is not None:
                run.woken()
        case RetrySaga():
            if saga.status in ENDED:
                return _not_now(saga, "retried")
            run.retried(command)
        case CompensateSaga():
            if saga.status is SagaStatus.NEEDS_OPERATOR:
                return _not_now(saga, "compensated: retry or resolve it")
            run.ordered_back(command)
        case ResolveSaga(by=by, note=note):
            if saga.status is not SagaStatus.NEEDS_OPERATOR:
                return _not_now(saga, "resolved")
            run.emit(SagaResolved(by, note, run.told))
        case _:
            assert_never(command)
    return tuple(run.events)


def _start(
    saga_id: str, saga: SagaState | None, command: StartSaga, definitions: Definitions
) -> Decision:
    definition = definitions.get(command.saga)
    if definition is None:
        known = ", ".join(definitions)
        message = f"there is no saga {command.saga!r}; there are: {known}"
        return Rejection(Code.UNKNOWN_SAGA, message, "saga")
    if len(saga_id) > MAX_SAGA_ID:
        return Rejection(
            Code.INVALID_KEY,
            f"a saga id may have {MAX_SAGA_ID} characters, this has {len(saga_id)}",
        )
    try:
        model = definition.input.model_validate_json(encode(command.input))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(("input", *(str(part) for part in first["loc"])))
        return Rejection(Code.INVALID_DATA, first["msg"], path)
    checked = msgspec.Raw(model.__pydantic_serializer__.to_json(model))
    if saga is not None:
        if saga.saga == command.saga and bytes(saga.input) == bytes(checked):
            return ()
        message = f"a saga with this id exists already, of another kind or input: {saga.saga}"
        return Rejection(Code.SAGA_ALREADY_EXISTS, message)
    started = SagaStarted(command.saga, checked, command.correlation_id)
    run = _Run(evolve(None, started, 0), definition, saga_id)
    run.begin(0)
    return (started, *run.events)


def _absent(command: SagaCommand, definitions: Definitions) -> Decision:
    barred = command.saga if isinstance(command, CompensateSaga) else None
    if isinstance(command, CompensateSaga) and barred is not None and barred in definitions:
        # It is barred: what starts it may be under way already.
        return (
            SagaStarted(barred, NOT_BEGUN),
            SagaFailed(command.code, command.reason, barred if definitions[barred].tells else None),
        )
    return Rejection(Code.SAGA_NOT_FOUND, "no saga has this id")


def _not_now(saga: SagaState, what: str) -> Rejection:
    return Rejection(Code.INVALID_TRANSITION, f"the saga is {saga.status} and cannot be {what}")


class _Run:
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
    def told(self) -> str | None:
        """The saga's name, for events to which others react."""
        return self.saga.saga if self._definition.tells else None

    def _input(self) -> Any:
        return self._definition.input.model_validate_json(bytes(self.saga.input))

    def _step(self, name: str) -> StepState:
        step = step_of(self.saga, name)
        assert step is not None, f"step {name} has not begun"
        return step

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
            self.emit(SagaCompleted(self.told, given))
            return
        step = self._definition.steps[position]
        count = step.external or len(step.commands(self._id, self._input()))
        if count == 0:  # nothing to ask, as for the payment of a gift
            self.begin(position + 1)
            return
        self.emit(SagaStepStarted(step.name, count, step.retry.timeout(1)))

    def answered(self, command: RecordAnswer) -> None:
        """An answer: noted if somebody waits for it, without effect if not."""
        token = parse_token(command.token)
        step = step_of(self.saga, token.step) if token else None
        if token is None or step is None:
            return
        given = step.undo_answers if token.undo else step.answers
        if token.number >= len(given) or not marks.is_waiting(given[token.number]):
            return
        if token.mark and token.mark != given[token.number]:
            return  # the refusal for which it was put off, again: that command came twice
        answer = Answer(
            command.type,
            command.accepted,
            command.code,
            command.message,
            msgspec.convert(command.events, tuple[AnswerEvent, ...]),
            command.repeated,
        )
        definition = self._definition.step(token.step)
        if token.undo:
            if step.status is not StepStatus.COMPENSATED:
                self._undo_answered(definition, step, token, answer)
        elif step.status is StepStatus.RUNNING and self.saga.status is SagaStatus.RUNNING:
            self._step_answered(definition, step, token, definition.read(answer))

    def _step_answered(
        self, definition: Step, step: StepState, token: Token, reading: Reading
    ) -> None:
        mark = step.answers[token.number]
        match reading:
            case Waiting():
                return
            case Refused(code, message, undone=True):
                self.emit(SagaStepFailed(step.name, code, message, token.number, self.told))
                self.emit(SagaCompensationStarted(code, message))
                self.emit(SagaStepCompensated(step.name, token.number, ACCEPTED))
                self._undo_next()
            case Refused(code, message):
                self._fail(step.name, code, message, token.number)
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
        self.emit(SagaStepFailed(name, code, message, number, self.told))
        self._go_back(code, message)

    # Back.

    def _go_back(self, code: str, message: str) -> None:
        """Undoes what was done, if anything was."""
        if self._next_to_undo() is None:
            self.emit(SagaFailed(code, message, self.told))
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
            timeout = undo.retry.timeout(1)
            if step.undo_answers:  # given up before, and taken up by an operator
                self.emit(SagaStepRetried(step.name, 1, timeout, True, self.told))
            else:
                self.emit(SagaStepCompensationStarted(step.name, asked, timeout, self.told))
            return
        left = tuple(s.name for s in self.saga.steps if s.status is StepStatus.NOT_COMPENSATED)
        if left:
            self.emit(SagaNeedsOperator(left))
        else:
            saga = self.saga
            self.emit(SagaCompensated(saga.undone, saga.code, saga.message, self.told))

    def _undo_answered(
        self, definition: Step, step: StepState, token: Token, answer: Answer
    ) -> None:
        undo = definition.undo
        assert undo is not None, f"step {step.name} has nothing to undo"
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
        definition = self._definition.step(step.name)
        if not undoing:
            if step.attempt < definition.retry.attempts:
                attempt = step.attempt + 1
                timeout = definition.retry.timeout(attempt)
                self.emit(SagaStepRetried(step.name, attempt, timeout))
            else:
                code, message = self._why(step, step.answers, "answered")
                self._fail(step.name, code, message)
            return
        undo = definition.undo
        assert undo is not None, f"step {step.name} has nothing to undo"
        if step.undo_attempt < undo.retry.attempts:
            attempt = step.undo_attempt + 1
            timeout = undo.retry.timeout(attempt)
            self.emit(SagaStepRetried(step.name, attempt, timeout, True, self.told))
            return
        code, message = self._why(step, step.undo_answers, "undone")
        self.emit(SagaStepCompensationFailed(step.name, code, message))
        self._undo_next()

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
        definition = self._definition.step(running.name)
        undo = definition.undo if running.status is StepStatus.COMPENSATING else None
        retry = undo.retry if undo else definition.retry
        told = self.told if undo else None
        self.emit(SagaStepRetried(running.name, 1, retry.timeout(1), undo is not None, told))

    def ordered_back(self, command: CompensateSaga) -> None:
        """Undoes a saga that runs or is completed; one that is undone already stays so."""
        if self.saga.status not in (SagaStatus.RUNNING, SagaStatus.COMPLETED):
            return
        self.emit(SagaCompensationOrdered(command.by, command.reason))
        running = self._running()
        if running is not None:
            self.emit(SagaStepFailed(running.name, command.code, command.reason, None, self.told))
        self._go_back(command.code, command.reason)
