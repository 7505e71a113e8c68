"""Which commands follow from a saga's event. Pure: the same event gives the same commands and ids."""

from dataclasses import dataclass

from sagas import marks
from sagas.definition import SagaDefinition, Send
from sagas.evolve import begun
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
    step, state = definition.step(name), begun(saga, name)
    if step.external:
        return ()
    given = definition.input.model_validate_json(bytes(saga.input))
    follow_ups = []
    for number, send in enumerate(step.commands(saga_id, given)):
        mark = (state.undo_answers if undo else state.answers)[number]
        if marks.is_waiting(mark):
            token = Token(name, number, undo, mark)
            sent = step.undoing.of(saga_id, given, send) if undo else send
            follow_ups.append(FollowUp(sent, _command_id(saga_id, token), token))
    return tuple(follow_ups)


def _command_id(saga_id: str, token: Token) -> str:
    direction = "undo-" if token.undo else ""
    return f"{saga_id}.{direction}{token.step}.{token.number}{token.mark}"
