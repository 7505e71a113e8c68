"""Which commands follow from a saga's event. Pure: the same event gives the same commands and ids."""

from dataclasses import dataclass
from typing import Any

from sagas import marks
from sagas.definition import SagaDefinition, Send, Step
from sagas.evolve import step_of
from sagas.tokens import Token
from schemas.saga import (
    SagaEvent,
    SagaState,
    SagaStepCompensationStarted,
    SagaStepRetried,
    SagaStepStarted,
)


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A command that a saga sends. Sent again under the same id it is carried out once."""

    send: Send
    command_id: str
    token: Token


def react(
    saga_id: str, saga: SagaState, event: SagaEvent, definition: SagaDefinition
) -> tuple[FollowUp, ...]:
    """The commands to send after ``event``, which led to ``saga``."""
    match event:
        case SagaStepStarted(step):
            return _ask(saga_id, saga, definition, step, undo=False)
        case SagaStepRetried(step, undo=undo):
            return _ask(saga_id, saga, definition, step, undo=undo)
        case SagaStepCompensationStarted(step):
            return _ask(saga_id, saga, definition, step, undo=True)
        case _:
            return ()


def _ask(
    saga_id: str, saga: SagaState, definition: SagaDefinition, name: str, *, undo: bool
) -> tuple[FollowUp, ...]:
    """All commands of a step that wait for an answer, each under the id that its mark stands for."""
    step, begun = definition.step(name), step_of(saga, name)
    assert begun is not None, f"step {name} has not begun"
    if step.external:
        return ()
    given = definition.input.model_validate_json(bytes(saga.input))
    follow_ups = []
    for number, send in enumerate(step.commands(saga_id, given)):
        mark = (begun.undo_answers if undo else begun.answers)[number]
        if marks.is_waiting(mark):
            token = Token(name, number, undo, mark)
            sent = _undoing(saga_id, given, step, send) if undo else send
            follow_ups.append(FollowUp(sent, _command_id(saga_id, token), token))
    return tuple(follow_ups)


def _undoing(saga_id: str, given: Any, step: Step, send: Send) -> Send:
    assert step.undo is not None, f"step {step.name} has nothing to undo"
    return step.undo.of(saga_id, given, send)


def _command_id(saga_id: str, token: Token) -> str:
    direction = "undo-" if token.undo else ""
    return f"{saga_id}.{direction}{token.step}.{token.number}{token.mark}"
