"""The event store over the history topics: streams, states of the past, replay, subscriptions, audit.

May import readmodels (positions and scripts of Redis), sagas and commands (to fold), runtime and schemas.
"""

from eventstore.audit import Entry, EntryKind
from eventstore.events import (
    BEGINNING,
    AppendRefused,
    ConcurrencyConflict,
    EventStoreError,
    HistoryIncomplete,
    IndexIncomplete,
    NewEvent,
    Position,
    RecordedEvent,
    StreamHasDecider,
    StreamId,
    StreamNotFound,
    UnknownStream,
    UnreadableEvent,
    VersionNotFound,
)
from eventstore.folding import Change, StateAt
from eventstore.following import ReplayStalled, Subscription
from eventstore.indexer import IndexStalled
from eventstore.keys import KeysStalled
from eventstore.projections import Projection, ProjectionExists, UnknownProjection
from eventstore.store import EventStore

__all__ = [
    "BEGINNING",
    "AppendRefused",
    "Change",
    "ConcurrencyConflict",
    "Entry",
    "EntryKind",
    "EventStore",
    "EventStoreError",
    "HistoryIncomplete",
    "IndexIncomplete",
    "IndexStalled",
    "KeysStalled",
    "NewEvent",
    "Position",
    "Projection",
    "ProjectionExists",
    "RecordedEvent",
    "ReplayStalled",
    "StateAt",
    "StreamHasDecider",
    "StreamId",
    "StreamNotFound",
    "Subscription",
    "UnknownProjection",
    "UnknownStream",
    "UnreadableEvent",
    "VersionNotFound",
]
