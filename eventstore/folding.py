"""State from events: the fold, and what each event changed in it. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Loaded
from eventstore.events import PLAIN, RecordedEvent, UnreadableEvent
from sagas import by_name
from schemas.decoding import decode_json, decoder
from schemas.records import encode
from schemas.stream import Appended


class StateAt(msgspec.Struct, frozen=True):
    """An aggregate as of an event. ``state`` is its root, ``parts`` the parts that are open (reservations).

    ``version`` 0: before its first event; then ``state`` is None.
    """

    version: int
    occurred_at_ms: int
    state: Any
    parts: Mapping[str, Any] = {}

    def plain(self) -> Any:
        """As JSON has it: ``state``, and ``parts`` where there are any."""
        return decode_json(encode({"state": self.state, "parts": dict(self.parts)}))


MAX_DEPTH: Final = 50
"""Levels of a state whose fields are compared one by one; what is deeper is compared as a whole."""

NOTHING: Final = StateAt(0, 0, None)


def fold(
    aggregate: str, events: Iterable[RecordedEvent]
) -> Iterator[tuple[RecordedEvent, StateAt]]:
    """Each event with the state after it. Raises UnreadableEvent for one that makes no state of it."""
    for event, state in fold_leniently(aggregate, events):
        if event.unreadable:
            raise UnreadableEvent(event.unreadable)
        yield event, state


def fold_leniently(
    aggregate: str, events: Iterable[RecordedEvent]
) -> Iterator[tuple[RecordedEvent, StateAt]]:
    """Each event with the state after it. From one on that cannot be read or folded, the state stays as it
    was before it, and the first such event says why.
    """
    row = by_name[aggregate]
    types = {event.__name__: event for event in row.events}
    loaded, state, reason = Loaded(), NOTHING, ""
    for event in events:
        shown = event
        if not reason:
            try:
                loaded = _next(row, types, loaded, state.version, event)
                state = StateAt(event.version, event.occurred_at_ms, loaded.root, loaded.parts)
            except _UNFOLDABLE as error:
                reason = event.unreadable or f"{event.stream}, version {event.version}: {error!r}"
                shown = msgspec.structs.replace(event, unreadable=reason)
        yield shown, state


_UNFOLDABLE: Final = (msgspec.MsgspecError, LookupError, ValueError, TypeError, AttributeError)
"""What a forged or newer event makes of a fold, which trusts that every event was once decided."""


def _next(
    row: Aggregate,
    types: Mapping[str, type[msgspec.Struct]],
    loaded: Loaded,
    version: int,
    event: RecordedEvent,
) -> Loaded:
    if event.unreadable:
        raise ValueError(event.unreadable)
    if event.version != version + 1:
        raise ValueError(f"version {event.version} follows {version}")
    return _evolved(row, types, loaded, event)


def _evolved(
    row: Aggregate, types: Mapping[str, type[msgspec.Struct]], loaded: Loaded, event: RecordedEvent
) -> Loaded:
    plain = row.name == PLAIN
    what = Appended(event.type, event.json) if plain else decoder(types[event.type])(event.data)
    after = row.evolve(loaded, what, event.occurred_at_ms)
    open_parts = {part: state for part, state in after.parts.items() if state is not None}
    return Loaded(after.root, open_parts)


class Change(msgspec.Struct, frozen=True):
    """A field of a state that an event changed; ``before`` or ``after`` is None where it is not there."""

    field: str
    before: Any
    after: Any


def changes(before: StateAt, after: StateAt) -> tuple[Change, ...]:
    """What differs, in the order of the state; ``lines.0.quantity`` names a field inside another,
    ``parts.<id>.quantity`` one of a part.
    """
    old, new = dict(_fields(before)), dict(_fields(after))
    names = [*new, *(name for name in old if name not in new)]
    return tuple(
        Change(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    )


def _fields(at: StateAt) -> Iterator[tuple[str, Any]]:
    plain = at.plain()
    if at.state is not None:
        yield from _leaves(plain["state"], "", MAX_DEPTH)
    yield from _leaves(plain["parts"], "parts.", MAX_DEPTH)


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    inside: Iterable[tuple[object, Any]]
    if depth and isinstance(value, dict):
        inside = value.items()
    elif depth and isinstance(value, list):
        inside = enumerate(value)
    else:
        yield path.removesuffix("."), value
        return
    for name, item in inside:
        yield from _leaves(item, f"{path}{name}.", depth - 1)
