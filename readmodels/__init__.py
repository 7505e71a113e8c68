"""The read side: events topics in, Redis views out, and the questions they answer.

May import `schemas` and `runtime`; knows nothing of commands and processors, because the topics are
the whole interface. The invariant kept here: a view is a function of the newest state of every
aggregate, whatever was repeated, reordered, interrupted, compacted or lost on the way.

Rooms, from the inside out:

- What a view says: `orders`, `stock`, `users`, `sagas`, each with its `project`; `views` is their table.
- How it is kept: `keys` (every Redis key), `documents`, `scripts` and `lua/`, `positions` (how far a
  view is), `records` (what a Kafka record means), `steps` (one conversation with Redis, sync and async).
- Who feeds it: `projector`, with `app` (Faust), `transport`, `feed`, `watch`, `preflight`, `broker`,
  `deadletters`.
- Who makes it anew: `rebuilding` and `rollback`, with `filling`, `comparison`, `staging`, `standing`,
  `generations`; `mending` does so for single aggregates.
- Who reads it: `queries`, with `questions` and `answers`; `consistency` says how far it is.
"""

from readmodels.answers import (
    OrderAnswer,
    OrderPage,
    PartitionLag,
    Profile,
    SagaAnswer,
    SagaStepAnswer,
    StockAnswer,
    TopUser,
    UserAnswer,
    ViewStatus,
)
from readmodels.consistency import Consistency, Inconsistent, PartitionStatus, ViewConsistency
from readmodels.filling import Progress
from readmodels.generations import RebuildFailed, RebuildRunning
from readmodels.mending import Mended, mend
from readmodels.projector import run_projector
from readmodels.queries import AsyncQueries, Queries
from readmodels.questions import ViewTimeout
from readmodels.rebuilding import Plan, RebuildReport, ViewReport, rebuild
from readmodels.rollback import RolledBack, discard_previous, rollback

__all__ = [
    "Queries",
    "AsyncQueries",
    "OrderAnswer",
    "OrderPage",
    "UserAnswer",
    "Profile",
    "StockAnswer",
    "SagaAnswer",
    "SagaStepAnswer",
    "TopUser",
    "ViewStatus",
    "PartitionLag",
    "ViewTimeout",
    "run_projector",
    "rebuild",
    "Plan",
    "Consistency",
    "Inconsistent",
    "ViewConsistency",
    "PartitionStatus",
    "mend",
    "Mended",
    "rollback",
    "discard_previous",
    "RolledBack",
    "RebuildReport",
    "ViewReport",
    "Progress",
    "RebuildFailed",
    "RebuildRunning",
]
