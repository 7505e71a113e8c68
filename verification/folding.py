"""Is a state the fold (`evolve`) of its history? Pure: records in, findings out.

Imports the aggregates and the wire formats. Tests use it too, as the independent reading of a log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Loaded
from schemas.ids import MAX_ID_LENGTH, PART_SEPARATOR, is_part_key
from schemas.personal import is_sealed, key_bytes, opened
from schemas.records import EventRecord, decode_event
from schemas.upcasting import Reader
from verification.drift import Drift, Kind, Level

Entry = tuple[bytes | None, bytes | None]
"""Key and value of a record."""

_SHOWN_CHARACTERS: Final = 500
_SHOWN_KEY_BYTES: Final = 4 * (2 * MAX_ID_LENGTH + 1)
"""A key of a part is two ids and a slash."""


@dataclass(slots=True)
class States:
    """Newest records of an aggregate's events topic: by id, version and root; by id, its parts.

    ``deleted``: ids whose newest record is a tombstone. ``unreadable``: ids with the reason. ``keys``: by id,
    what opens the personal fields of its events, while it is not forgotten.
    """

    roots: dict[str, tuple[int, Any]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)


def newest_states(aggregate: Aggregate, records: Iterable[Entry]) -> States:
    """What the records of an events topic, each partition in order, come to."""
    found = States()
    roots = Reader(aggregate.root_type)
    parts = Reader(aggregate.part_type) if aggregate.part_type else None
    for raw, value in records:
        key = _shown_key(raw)
        identity, _, part = key.partition(PART_SEPARATOR)
        try:
            if is_part_key(key):
                _add_part(found, parts, identity, part, value)
            elif value is None:
                found.roots.pop(key, None)
                found.deleted.add(key)
            else:
                event = decode_event(value)
                root = roots.read(event.state, event.state_version)
                found.roots[key] = event.version, root
                found.deleted.discard(key)
                _keep_key(found, key, event.subject_key)
        except (
            msgspec.MsgspecError,
            ValueError,
        ) as error:  # ValueError: of what is no key for seals
            found.unreadable[key] = str(error)[:_SHOWN_CHARACTERS]
    return found


def _shown_key(raw: bytes | None) -> str:
    """The key as text; cut where it is longer than any key of ours."""
    return (raw or b"")[:_SHOWN_KEY_BYTES].decode(errors="replace")


def _keep_key(found: States, identity: str, text: str) -> None:
    if text:
        found.keys[identity] = key_bytes(text)
    else:
        found.keys.pop(identity, None)


def _add_part(
    found: States, reader: Reader[Any] | None, identity: str, part: str, value: bytes | None
) -> None:
    parts = found.parts.setdefault(identity, {})
    if value is None or reader is None:
        parts.pop(part, None)
    else:
        event = decode_event(value)
        parts[part] = reader.read(event.state, event.state_version)


class Fold:
    """Folds histories, and compares with the states when it comes to their versions.

    Feed it every record of a history, each partition in order, with `add`; then ask for `drifts`.
    """

    def __init__(self, aggregate: Aggregate, states: States) -> None:
        self.drifts: list[Drift] = []
        self.folded: dict[str, tuple[int, Any]] = {}
        self.parts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self._aggregate = aggregate
        self._states = states
        self._events = {event.__name__: Reader(event) for event in aggregate.events}
        self._given_up: set[str] = set()

    def add(self, key: bytes | None, value: bytes | None) -> EventRecord | None:
        """One record of the history; None if it is not readable."""
        identity = _shown_key(key)
        try:
            event = decode_event(value or b"")
            data = self._events[event.type].read(
                self._in_the_clear(identity, event), event.schema_version
            )
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            self._give_up(identity, Kind.UNREADABLE, None, repr(error)[:_SHOWN_CHARACTERS])
            return None
        if identity in self._given_up:
            return event
        version, root = self.folded.get(identity, (0, None))
        if event.version != version + 1:
            self._give_up(identity, Kind.GAP, version + 1, event.version)
            return event
        part = getattr(data, "reservation_id", None)
        parts = {} if part is None else {part: self.parts[identity].get(part)}
        try:
            evolved = self._aggregate.evolve(Loaded(root, parts), data, event.occurred_at_ms)
        except Exception as error:  # noqa: BLE001 - evolve trusts that an event was decided; this one was not
            self._give_up(identity, Kind.UNREADABLE, None, repr(error)[:_SHOWN_CHARACTERS])
            return event
        self.folded[identity] = event.version, evolved.root
        if part is not None:
            self._keep(identity, part, evolved.parts.get(part))
        self._compare(identity, event.version)
        return event

    def _in_the_clear(self, identity: str, event: EventRecord) -> bytes | msgspec.Raw:
        kind = self._events[event.type].type
        if not is_sealed(kind, event.schema_version):
            return event.data
        stream = f"{self._aggregate.name}/{identity}"
        return opened(kind, bytes(event.data), self._states.keys.get(identity), stream, event.id)

    def finish(self) -> list[Drift]:
        """All findings, with those that only the end of the histories shows."""
        for identity, (version, _) in self._states.roots.items():
            reached = self.folded.get(identity, (0, None))[0]
            if reached < version and identity not in self._given_up:
                self._add(identity, Kind.GAP, version, reached)
        for identity in self.folded:
            if identity not in self._states.roots and identity not in self._states.deleted:
                self._add(identity, Kind.MISSING, self.folded[identity][1], None)
        for key, reason in self._states.unreadable.items():
            self._add(key, Kind.UNREADABLE, None, reason)
        return self.drifts

    def _compare(self, identity: str, version: int) -> None:
        known = self._states.roots.get(identity)
        if known is None or known[0] != version:
            return
        root = self.folded[identity][1]
        if known[1] != root:
            self._add(identity, Kind.DIFFERENT, root, known[1])
        folded, parts = self.parts.get(identity, {}), self._states.parts.get(identity, {})
        if parts != folded:
            wrong = _different(folded, parts)
            self._add(
                identity,
                Kind.DIFFERENT,
                {name: folded.get(name) for name in wrong},
                {name: parts.get(name) for name in wrong},
            )

    def _keep(self, identity: str, part: str, state: Any) -> None:
        if state is None:
            self.parts[identity].pop(part, None)
        else:
            self.parts[identity][part] = state

    def _give_up(self, identity: str, kind: Kind, expected: Any, found: Any) -> None:
        if identity not in self._given_up:
            self._given_up.add(identity)
            self._add(identity, kind, expected, found)

    def _add(self, identity: str, kind: Kind, expected: Any, found: Any) -> None:
        drift = Drift(Level.STATE, kind, self._aggregate.name, identity, expected, found)
        self.drifts.append(drift)


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
