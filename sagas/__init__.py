"""Sagas: what has to happen in several aggregates, or be undone in all of them.

Pure: a saga is declared (sagas/definition.py) and runs as an aggregate of its own, with ``decide``,
``evolve`` and ``react``. A new saga is a file and a row in ``DEFINITIONS``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import commands
from commands.aggregate import Aggregate, Loaded
from sagas import choreography, create_order
from sagas.decide import decide as decide_saga
from sagas.definition import SagaDefinition
from sagas.evolve import evolve as evolve_saga
from sagas.messages import (
    CompensateSaga,
    RecordAnswer,
    ResolveSaga,
    RetrySaga,
    StartSaga,
    WakeSaga,
)
from sagas.react import FollowUp
from sagas.react import react as react_as
from schemas import topics
from schemas.saga import EVENTS, SagaEvent, SagaState

DEFINITIONS: Final[tuple[SagaDefinition, ...]] = (create_order.SAGA, *choreography.SAGAS)

by_saga: Final[Mapping[str, SagaDefinition]] = {saga.name: saga for saga in DEFINITIONS}
"""Name of a saga, as it stands in its events, to its definition."""


def _evolve(loaded: Loaded, event: SagaEvent, at_ms: int) -> Loaded:
    return Loaded(evolve_saga(loaded.root, event, at_ms))


def saga_aggregate(patience: float = 1.0) -> Aggregate:
    """The sagas as an aggregate, with all their waits so many times as long as they are defined."""
    definitions = {name: saga.patient(patience) for name, saga in by_saga.items()}
    return Aggregate(
        name=topics.SAGA,
        commands=(StartSaga, RecordAnswer, WakeSaga, RetrySaga, CompensateSaga, ResolveSaga),
        events=EVENTS,
        root_type=SagaState,
        decide=partial(decide_saga, definitions=definitions),
        evolve=_evolve,
        own_time=True,  # it sets timers
    )


SAGA: Final = saga_aggregate()


def react(saga_id: str, saga: SagaState, event: SagaEvent) -> tuple[FollowUp, ...]:
    """The commands that a saga sends after an event. Raises KeyError for one that is not defined."""
    return react_as(saga_id, saga, event, by_saga[saga.saga])


AGGREGATES: Final[tuple[Aggregate, ...]] = (*commands.AGGREGATES, SAGA)
"""Every aggregate there is: the domain's, and the sagas."""

by_command: Final[Mapping[str, Aggregate]] = {
    **commands.by_command,
    **{command.__name__: SAGA for command in SAGA.commands},
}
"""Command type, as it stands in a command record, to the aggregate that decides on it."""

by_name: Final[Mapping[str, Aggregate]] = {aggregate.name: aggregate for aggregate in AGGREGATES}
"""Aggregate name, as it stands in the topics, to aggregate."""
