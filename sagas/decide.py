"""Which commands a saga takes when, and what follows. Pure: no clock, no ids drawn; deadlines are set
by ``evolve``. What happens in a saga that has begun is sagas/run.py.
"""

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec
from pydantic import ValidationError

from commands.aggregate import Decision, Loaded, invalid_data
from commands.ownership import refuse_another
from sagas.definition import SagaDefinition
from sagas.evolve import evolve
from sagas.messages import (
    CompensateSaga,
    RecordAnswer,
    ResolveSaga,
    RetrySaga,
    SagaCommand,
    StartSaga,
    WakeSaga,
)
from sagas.run import Run
from schemas.records import encode
from schemas.rejections import Code, Rejection
from schemas.saga import ENDED, SagaFailed, SagaResolved, SagaStarted, SagaState, SagaStatus

MAX_SAGA_ID: Final = 96
"""The ids of a saga's commands begin with its own and have at most 128 characters."""

NOT_BEGUN: Final = msgspec.Raw(b"null")
"""Input of a saga that was barred before it began."""

Definitions = Mapping[str, SagaDefinition]


def decide(loaded: Loaded, command: SagaCommand, definitions: Definitions) -> Decision:
    """What follows from the command, or why nothing does."""
    saga: SagaState | None = loaded.root
    if isinstance(command, StartSaga):
        return _start(loaded, command, definitions)
    if saga is None:
        return _absent(loaded.id, command, definitions)
    run = Run(saga, definitions[saga.saga], loaded.id)
    match command:
        case RecordAnswer():
            run.answered(command, from_saga=command.type in definitions)
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
            if command.saga not in (None, saga.saga):
                return _another(saga, command.saga)
            another = refuse_another(saga.saga, saga.made_by, command.only_if_made_by)
            if another is not None:
                return another
            if definitions[saga.saga].part and command.saga is None:
                return _only_as_a_whole(saga)
            run.ordered_back(command)
        case ResolveSaga(by=by, note=note):
            if saga.status is not SagaStatus.NEEDS_OPERATOR:
                return _not_now(saga, "resolved")
            run.emit(SagaResolved(by, note, **run.told))
        case _:
            assert_never(command)
    return tuple(run.events)


def _start(loaded: Loaded, command: StartSaga, definitions: Definitions) -> Decision:
    saga_id = loaded.id
    saga: SagaState | None = loaded.root
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
        return invalid_data(error, "input")
    checked = msgspec.Raw(model.__pydantic_serializer__.to_json(model))
    if saga is not None:
        same = saga.saga == command.saga and bytes(saga.input) == bytes(checked)
        if same and saga.made_by == command.made_by:
            return ()
        if definition.part:
            return _another(saga, command.saga)
        message = f"a saga with this id exists already, of another kind or input: {saga.saga}"
        return Rejection(Code.SAGA_ALREADY_EXISTS, message)
    scope = loaded.scope or None
    started = SagaStarted(command.saga, checked, command.correlation_id, scope, command.made_by)
    run = Run(evolve(None, started, 0), definition, saga_id)
    run.begin(0)
    return (started, *run.events)


def _absent(saga_id: str, command: SagaCommand, definitions: Definitions) -> Decision:
    barred = command.saga if isinstance(command, CompensateSaga) else None
    if isinstance(command, CompensateSaga) and barred is not None and barred in definitions:
        # It is barred: what starts it may be under way already.
        started = SagaStarted(barred, NOT_BEGUN, made_by=command.only_if_made_by)
        run = Run(evolve(None, started, 0), definitions[barred], saga_id)
        return (started, SagaFailed(command.code, command.reason, **run.told))
    return Rejection(Code.SAGA_NOT_FOUND, "no saga has this id")


def _not_now(saga: SagaState, what: str) -> Rejection:
    return Rejection(Code.INVALID_TRANSITION, f"the saga is {saga.status} and cannot be {what}")


def _another(saga: SagaState, wanted: str | None) -> Rejection:
    """To an order whose part should have this id: it is somebody else's saga."""
    other = " of another maker or input" if saga.saga == wanted else ""
    message = (
        f"{saga.saga}{other} has this id, and not the {wanted} asked for, so it is not touched"
    )
    return Rejection(Code.MADE_BY_ANOTHER, message, "saga")


def _only_as_a_whole(saga: SagaState) -> Rejection:
    """To an operator: whoever has this as a part would not know, and go on, or stay completed."""
    message = f"{saga.saga} is a part of another saga: have that one compensated"
    return Rejection(Code.INVALID_TRANSITION, message)
