"""Which commands follow from a saga's event. Pure: the same event gives the same commands and ids."""

from dataclasses import dataclass, replace

from commands.ownership import MADE_BY, ONLY_IF_MADE_BY
from sagas import marks
from sagas.definition import SagaDefinition, Send
from sagas.evolve import begun
from sagas.tokens import Token
from schemas.ids import derived_id, scoped_id
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
            command_id = _command_id(saga_id, saga.scope, token)
            follow_ups.append(FollowUp(_signed(sent, saga_id, saga.scope), command_id, token))
    return tuple(follow_ups)


def _command_id(saga_id: str, scope: str | None, token: Token) -> str:
    """Return an id that no client can have taken before the saga began: its scope was not known then.

    A saga of an older release keeps its ids: asked again under another, a command is carried out twice.
    """
    direction = "undo-" if token.undo else ""
    name = f"{direction}{token.step}.{token.number}{token.mark}"
    return f"{saga_id}.{name}" if scope is None else derived_id(saga_id, scope, name)


def _signed(send: Send, saga_id: str, scope: str | None) -> Send:
    """Sign what the saga makes, and let what undoes touch nothing that is not signed so.

    The other commands of a saga of an older release are not signed, so what undoes them cannot ask.
    """
    signed = {MADE_BY, ONLY_IF_MADE_BY} & type(send.command).model_fields.keys()
    if scope is None or not signed:
        return send
    maker = scoped_id(saga_id, scope)
    return replace(send, command=send.command.model_copy(update=dict.fromkeys(signed, maker)))


def wake_id(saga: SagaState) -> str:
    """Return the id of the command that wakes a saga at its next appointment."""
    name = f"timer.{saga.timer}"
    return name if saga.scope is None else derived_id(name, saga.scope)
