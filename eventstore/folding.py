"""State from events: the fold, and what each event changed in it. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Loaded
from eventstore.events import PLAIN, RecordedEvent
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


NOTHING: Final = StateAt(0, 0, None)


def fold(
    aggregate: str, events: Iterable[RecordedEvent]
) -> Iterator[tuple[RecordedEvent, StateAt]]:
    """Each event with the state after it. Raises msgspec.DecodeError, ValueError for a gap."""
    row = by_name[aggregate]
    types = {event.__name__: event for event in row.events}
    loaded = Loaded()
    version = 0
    for event in events:
        if event.version != version + 1:
            raise ValueError(f"{event.stream}: version {event.version} follows {version}")
        version = event.version
        loaded = _evolved(row, types, loaded, event)
        yield event, StateAt(version, event.occurred_at_ms, loaded.root, loaded.parts)


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
        yield from _leaves(plain["state"], "")
    yield from _leaves(plain["parts"], "parts.")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    inside: Iterable[tuple[object, Any]]
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    else:
        yield path.removesuffix("."), value
        return
    for name, item in inside:
        yield from _leaves(item, f"{path}{name}.")
