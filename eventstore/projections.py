"""Registered projections: a state that follows from events, kept with the position it stands for.

For what is small and asked for now and then (a count, a report); what grows with the number of aggregates is
a view (``readmodels``). State and position are one value under one key, so they cannot come apart: whoever
reads it goes on from exactly there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from eventstore.events import BEGINNING, EventStoreError, Position, RecordedEvent
from runtime.redis import pooled
from runtime.settings import Settings
from schemas.decoding import decoder

S = TypeVar("S")


class UnknownProjection(EventStoreError):
    """No projection of this name was registered."""

    code = "unknown_projection"


class ProjectionExists(EventStoreError):
    """A projection of this name is registered already."""

    code = "projection_exists"


@dataclass(frozen=True, slots=True)
class Projection(Generic[S]):
    """``apply`` gives the state after an event, and is pure: no clock, nothing from outside.

    ``aggregates``: whose histories it reads. ``types``: the events it is shown; empty: all. ``state_type``:
    how the state is read back from JSON. A changed ``apply`` gets a higher ``revision`` and starts from the
    first event.
    """

    name: str
    aggregates: tuple[str, ...]
    initial: S
    apply: Callable[[S, RecordedEvent], S]
    state_type: type[S]
    types: frozenset[str] = frozenset()
    revision: int = 1

    def after(self, state: S, event: RecordedEvent) -> S:
        """The state after an event, which may be none of its own."""
        return self.apply(state, event) if not self.types or event.type in self.types else state


class Kept(msgspec.Struct, frozen=True):
    """What stands in Redis."""

    position: Position
    state: msgspec.Raw


_decode_kept: Final = decoder(Kept)


class ProjectionShelf:
    """Where the states of projections are kept."""

    def __init__(self, settings: Settings) -> None:
        self._stem = f"{settings.topic_prefix}:event-store:projection:"
        self._redis = pooled(settings)

    def close(self) -> None:
        """Closes its connections."""
        self._redis.close()

    def load(self, projection: Projection[S]) -> tuple[S, Position]:
        """As it was kept, or as it begins."""
        text: Any = self._redis.run([("GET", self._key(projection))])[0]
        if text is None:
            return projection.initial, BEGINNING
        kept = _decode_kept(text)
        return decoder(projection.state_type)(kept.state), kept.position

    def keep(self, projection: Projection[S], state: S, position: Position) -> None:
        """State and position, in one write."""
        kept = Kept(position, msgspec.Raw(msgspec.json.encode(state)))
        self._redis.run([("SET", self._key(projection), msgspec.json.encode(kept))])

    def forget(self, projection: Projection[Any]) -> None:
        """It begins anew."""
        self._redis.run([("DEL", self._key(projection))])

    def _key(self, projection: Projection[Any]) -> str:
        return f"{self._stem}{projection.name}:{projection.revision}"
