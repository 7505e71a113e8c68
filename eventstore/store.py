"""The event store: append to streams and read them, replay, state as of a version or a time, subscriptions.

It stands on the history topics. Appending goes through the processor that owns the stream's partition, so
``expected_version`` is true under any number of writers. Reading one stream asks the index in Redis where its
events are and fetches just those from Kafka.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from itertools import takewhile
from types import TracebackType
from typing import Any, Self, TypeVar

from commands.free_json import UNSTORABLE, is_storable
from eventstore import audit
from eventstore.events import (
    BEGINNING,
    PLAIN,
    AppendRefused,
    ConcurrencyConflict,
    NewEvent,
    Position,
    RecordedEvent,
    StreamHasDecider,
    StreamId,
    StreamNotFound,
    VersionNotFound,
)
from eventstore.folding import NOTHING, StateAt, fold, fold_leniently
from eventstore.following import Subscription
from eventstore.progress import OnProgress
from eventstore.projections import Projection, ProjectionExists, ProjectionShelf, UnknownProjection
from eventstore.reading import Reader
from runtime.client import DEFAULT_TIMEOUT_S, CommandClient, OutgoingCommand
from runtime.settings import Settings
from schemas.records import encode
from schemas.rejections import Code
from schemas.topics import AGGREGATES

S = TypeVar("S")


class EventStore:
    """Thread-safe; one a process is enough. Use as a context manager, or call ``close()``.

    ``on_progress`` is told how far the index is, when it has to be built first. Reading raises
    KafkaException, RedisError, TopicsMissing, IndexStalled or KeysStalled besides what each method says.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress | None = None) -> None:
        self._settings = settings
        self._turn = threading.RLock()
        self._reader = Reader(settings, on_progress)
        self._shelf = ProjectionShelf(settings)
        self._projections: dict[str, Projection[Any]] = {}
        self._client: CommandClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections; subscriptions have their own."""
        with self._turn:
            if self._client is not None:
                self._client.close()
            self._reader.close()
            self._shelf.close()

    # Writing.

    def append(
        self,
        stream: StreamId | str,
        events: Sequence[NewEvent],
        expected_version: int | None,
        *,
        append_id: str | None = None,
        correlation_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> int:
        """Appends all events or none, and returns the version of the last one.

        ``expected_version``: where the stream has to stand; 0: it must not exist; None: anywhere. The same
        ``append_id`` twice appends once. Raises ConcurrencyConflict, StreamHasDecider, AppendRefused,
        UnknownStream; and OutcomeTimeout when no processor answered: append again with the same id.
        """
        target = StreamId.parse(stream)
        if target.aggregate != PLAIN:
            raise StreamHasDecider(
                f"{target} has a decider: send its commands instead (`orderflow send`). Only {PLAIN}/<id>"
                " takes events as they are; past a decider, they could break what it promises."
            )
        if not all(is_storable(event.data) for event in events):
            raise AppendRefused(target, Code.INVALID_DATA, UNSTORABLE)
        data = {"events": [{"type": event.type, "data": event.data} for event in events]}
        command = OutgoingCommand(
            aggregate=target.aggregate,
            aggregate_id=target.id,
            type="AppendEvents",
            data=encode(data),
            command_id=append_id or uuid.uuid4().hex,
            expected_version=expected_version,
            correlation_id=correlation_id,
        )
        outcome = self._commands().execute(command, timeout)
        if outcome.accepted:
            return outcome.version
        if outcome.code is Code.VERSION_CONFLICT and expected_version is not None:
            raise ConcurrencyConflict(target, expected_version, outcome.version)
        raise AppendRefused(target, str(outcome.code), outcome.message or "")

    def _commands(self) -> CommandClient:
        with self._turn:
            if self._client is None:
                self._client = CommandClient(self._settings)
            return self._client

    # Reading one stream.

    def get_stream(
        self, stream: StreamId | str, from_version: int = 1, to_version: int | None = None
    ) -> tuple[RecordedEvent, ...]:
        """The events of these versions, both included, in order; empty where the stream has none.

        What was committed before the call is in it. Raises HistoryIncomplete, IndexIncomplete,
        UnknownStream.
        """
        with self._turn:
            return tuple(self._reader.events(StreamId.parse(stream), from_version, to_version))

    def version(self, stream: StreamId | str) -> int:
        """The version of the last event; 0 for a stream that has none. Raises UnknownStream."""
        with self._turn:
            return self._reader.version(StreamId.parse(stream))

    def state_at(
        self, stream: StreamId | str, *, version: int | None = None, at_ms: int | None = None
    ) -> StateAt:
        """The aggregate after ``version``, or as of ``at_ms`` (epoch milliseconds, UTC), or as it is.

        As of a time means: after the events that had happened by then, up to the first that had not. Raises
        StreamNotFound, VersionNotFound, HistoryIncomplete, UnreadableEvent, UnknownStream.
        """
        last = NOTHING
        for _, state in self.states(stream, version=version, at_ms=at_ms):
            last = state
        return last

    def states(
        self, stream: StreamId | str, *, version: int | None = None, at_ms: int | None = None
    ) -> tuple[tuple[RecordedEvent, StateAt], ...]:
        """Each event up to a version or a time, with the aggregate after it; at least one.

        Raises as ``state_at`` does.
        """
        target = StreamId.parse(stream)
        with self._turn:
            events = self.get_stream(target, 1, version)
        return tuple(fold(target.aggregate, _happened(target, events, version, at_ms)))

    # Audit.

    def timeline(
        self, stream: StreamId | str, *, version: int | None = None, at_ms: int | None = None
    ) -> tuple[audit.Entry, ...]:
        """Events of one aggregate with what each changed, and the commands that it refused.

        Refusals are there as long as outcomes are kept (10 days), the newest 1,000. What cannot be read is
        an entry that says why. Raises as ``state_at`` does, but UnreadableEvent.
        """
        return self.history(stream, version=version, at_ms=at_ms)[0]

    def history(
        self, stream: StreamId | str, *, version: int | None = None, at_ms: int | None = None
    ) -> tuple[tuple[audit.Entry, ...], StateAt]:
        """The ``timeline`` and the state after it: the last one that all events before it make."""
        target = StreamId.parse(stream)
        with self._turn:
            events = tuple(self._reader.events(target, 1, version, leniently=True))
            happened = _happened(target, events, version, at_ms)
            states = tuple(fold_leniently(target.aggregate, happened))
            last = states[-1][0]
            bounded = version is not None or at_ms is not None
            until = (last.version, at_ms or last.occurred_at_ms) if bounded else None
            entries = audit.aggregate_timeline(states, self._reader.refused(target), until)
        return entries, states[-1][1]

    def conversation(self, correlation_id: str) -> tuple[audit.Entry, ...]:
        """Commands, events and dead letters of a conversation over all aggregates; empty: none is known.

        Events and dead letters are there for ever, commands for 7 days and outcomes for 10 days. Raises
        HistoryIncomplete.
        """
        with self._turn:
            return audit.conversation(self._reader.talk(correlation_id), self._reader.keys)

    # Reading all of them.

    def replay(
        self,
        aggregates: Sequence[str] = AGGREGATES,
        start: Position = BEGINNING,
        on_progress: OnProgress | None = None,
    ) -> Iterator[RecordedEvent]:
        """Every event of these aggregates from a position to the end there is now.

        Raises ReplayStalled, UnknownStream.
        """
        return Subscription(self._settings, _known(aggregates), start, None).to_the_end(on_progress)

    def subscribe(
        self,
        aggregates: Sequence[str] = AGGREGATES,
        start: Position = BEGINNING,
        patience_s: float | None = None,
    ) -> Subscription:
        """Every event of these aggregates from a position on, those that are still to come, too.

        Iterate over it; it ends when it is closed, or when nothing came for ``patience_s``.
        """
        return Subscription(self._settings, _known(aggregates), start, patience_s)

    # Projections.

    def register(self, projection: Projection[S]) -> None:
        """Makes a projection known under its name. Raises ProjectionExists, UnknownStream."""
        _known(projection.aggregates)
        if projection.name in self._projections:
            raise ProjectionExists(f"a projection named {projection.name!r} is registered already")
        self._projections[projection.name] = projection

    def project(self, name: str, on_progress: OnProgress | None = None) -> Any:
        """A projection's state after all events that are there now.

        Raises UnknownProjection, ReplayStalled.
        """
        projection = self._registered(name)
        with self._turn:
            state, start = self._shelf.load(projection)
            reading = Subscription(self._settings, projection.aggregates, start, None)
            for event in reading.to_the_end(on_progress):
                state = projection.after(state, event)
            self._shelf.keep(projection, state, reading.position)
        return state

    def reset(self, name: str) -> None:
        """A projection begins anew, from the first event. Raises UnknownProjection."""
        with self._turn:
            self._shelf.forget(self._registered(name))

    def _registered(self, name: str) -> Projection[Any]:
        try:
            return self._projections[name]
        except KeyError:
            known = ", ".join(self._projections) or "none"
            raise UnknownProjection(
                f"no projection {name!r} is registered; there are: {known}"
            ) from None


def _happened(
    target: StreamId, events: Sequence[RecordedEvent], version: int | None, at_ms: int | None
) -> tuple[RecordedEvent, ...]:
    """The events up to a time; at least one. Raises StreamNotFound, VersionNotFound."""
    if not events:
        raise StreamNotFound(f"{target}: nothing was ever appended to it")
    if version is not None and events[-1].version < version:
        raise VersionNotFound(
            f"{target} has no version {version}; it stands at {events[-1].version}"
        )
    found = tuple(takewhile(lambda e: at_ms is None or e.occurred_at_ms <= at_ms, events))
    if not found:
        raise VersionNotFound(f"{target} had not begun at that time")
    return found


def _known(aggregates: Sequence[str]) -> tuple[str, ...]:
    """Raises UnknownStream (of an aggregate)."""
    for aggregate in aggregates:
        StreamId(aggregate, "x").checked()
    return tuple(aggregates)
