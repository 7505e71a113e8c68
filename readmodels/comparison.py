"""Is the rebuilt generation the same as the live one? Key for key, byte for byte, at one position vector.

The rebuilt one is held still at a vector V: all records before V are in it, and none after. The live one is
at V or beyond, and goes on. What differs is certain if no record between V and the end of the topics, as it
is *after* the look, could have changed it: then the live side says what it said at V. Everything else moved;
the rebuilt one is brought to that end, V', and what moved is looked at again there. So a difference is never
an illusion, and of what was found equal each side had applied the same records. What goes wrong on the live
side after it was looked at is for the next look.

What a view says is compared, not how Redis stores it: a hash has no order, markers of deletions expire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from readmodels import generations
from readmodels.filling import Note
from readmodels.keys import Keys, Kind
from readmodels.records import Change
from readmodels.steps import drive, pairs
from readmodels.views import View
from runtime.redis import Command, Line

ROUNDS: Final = 20
KEPT: Final = 1_000
"""Differences that are reported with both values; more are only counted."""

_READ: Final = {"hash": ("HGETALL",), "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "string": ("GET",)}

Value: TypeAlias = dict[str, str] | str | None
Element: TypeAlias = tuple[str, str]
"""A key without the generation's stem, and a member if the key is a sorted set."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one key, or one ``member`` of a sorted set (else empty), is on both sides; None: not there.

    A value is a hash, a string or a member's score. ``key`` is without what names the generation.
    """

    key: str
    member: str
    live: Value
    rebuilt: Value


@dataclass(frozen=True, slots=True)
class Comparison:
    """``compared`` keys were looked at, ``differences`` of them or of their members differ, the first of
    them ``differing``. ``moving``: pieces that changed at every look, so that nothing is said of them.

    ``vector``: ``<topic>:<partition>`` → the offset up to which all records, and none behind, were in what
    was compared last. ``skipped``: why nothing was compared, if so.
    """

    compared: int
    differences: int = 0
    differing: tuple[Difference, ...] = ()
    moving: int = 0
    vector: dict[str, int] = field(default_factory=dict)
    skipped: str = ""
    behind: bool = False

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against the rebuilt view."""
        return not self.differences and not self.behind


class Stage(Protocol):
    """What the comparison needs of the rebuild."""

    def meet(self) -> dict[str, int]:
        """Wait until the live generation is where the rebuilt one stands; returns that vector."""

    def advance(self, note: Note) -> None:
        """Bring the rebuilt one to the end of the topics as it is now, telling of every change."""


def compare(line: Line, view: View, old: Keys, new: Keys, stage: Stage) -> Comparison:
    """Compare two generations. Raises what the stage raises, and RedisError."""
    vector = stage.meet()
    look = _Look(line, view, old, new)
    look.everything()
    compared = look.compared
    found = _Found()
    for _ in range(ROUNDS):
        if not look.suspects:
            break
        moved = look.certain(stage, found)
        if not moved:
            break
        vector = stage.meet()
        look.again(moved)
    else:
        return found.report(compared, len(look.suspects), vector)
    return found.report(compared, 0, vector)


@dataclass(slots=True)
class _Found:
    count: int = 0
    first: list[Difference] = field(default_factory=list)

    def add(self, element: Element, values: tuple[Value, Value] | None) -> None:
        self.count += 1
        if values is not None and len(self.first) < KEPT:
            self.first.append(Difference(*element, *values))

    def report(self, compared: int, moving: int, vector: dict[str, int]) -> Comparison:
        first = sorted(self.first, key=lambda one: (one.key, one.member))
        return Comparison(compared, self.count, tuple(first), moving, vector)


class _Look:
    """``suspects``: what differed at the last look; both values, unless there are very many."""

    def __init__(self, line: Line, view: View, old: Keys, new: Keys) -> None:
        self.compared = 0
        self.suspects: dict[Element, tuple[Value, Value] | None] = {}
        self._line = line
        self._view = view
        self._old = old
        self._new = new

    def everything(self) -> None:
        """Both ways: what stands on either side."""
        for page in generations.pages(self._line, self._old):
            names = _lasting(self._old, page)
            self.compared += len(names)
            self._compare(names)
        for page in generations.pages(self._line, self._new):
            names = _lasting(self._new, page)
            there = self._line.run([("EXISTS", self._old.stem + name) for name in names])
            self._compare([name for name, one in zip(names, there, strict=True) if not one])

    def again(self, wanted: set[Element]) -> None:
        """Only these."""
        self.suspects = {}
        names = sorted({name for name, _ in wanted})
        for start in range(0, len(names), generations.PAGE):
            self._compare(names[start : start + generations.PAGE])
        self.suspects = {e: values for e, values in self.suspects.items() if e in wanted}

    def certain(self, stage: Stage, found: _Found) -> set[Element]:
        """Add to ``found`` what nothing can have changed meanwhile; returns the rest of the suspects."""
        units = {element: self._unit(element) for element in self.suspects}
        suspected = set(units.values())
        moved: set[str] = set()

        def note(view: View, keys: Keys, changes: Sequence[Change[Any]]) -> None:
            if view is self._view:
                moved.update(suspected & drive(self._line, view.touched(keys, changes)))

        stage.advance(note)
        for element, values in self.suspects.items():
            if units[element] not in moved:
                found.add(element, values)
        return {element for element, unit in units.items() if unit in moved}

    def _unit(self, element: Element) -> str:
        name, member = element
        parsed = self._old.parse(self._old.stem + name)
        kind, identity = parsed or (None, "")
        return self._view.unit_of(kind.name if kind else "", identity, member)

    def _compare(self, names: Sequence[str]) -> None:
        before = contents(self._line, self._old, names)
        after = contents(self._line, self._new, names)
        for name, live, rebuilt in zip(names, before, after, strict=True):
            for element, values in _differences(name, live, rebuilt):
                self.suspects[element] = values if len(self.suspects) < KEPT else None


def _differences(
    name: str, live: Any, rebuilt: Any
) -> Iterator[tuple[Element, tuple[Value, Value]]]:
    if live == rebuilt:
        return
    if isinstance(live, Scores) and isinstance(rebuilt, Scores):
        for member in sorted({*live, *rebuilt}):
            if live.get(member) != rebuilt.get(member):
                yield (name, member), (live.get(member), rebuilt.get(member))
    else:
        yield (name, ""), (live, rebuilt)


class Scores(dict[str, str]):
    """A sorted set: member → score; empty if there is none."""


def contents(line: Line, keys: Keys, names: Sequence[str]) -> list[Any]:
    """What these keys (without the stem) hold: a dict, Scores, a string; None where there is nothing."""
    kinds = [keys.kind_of(keys.stem + name) for name in names]
    commands = [_read(keys.stem + name, kind) for name, kind in zip(names, kinds, strict=True)]
    replies = line.run(commands) if commands else []
    return [_content(reply, kind) for reply, kind in zip(replies, kinds, strict=True)]


def _content(reply: Any, kind: Kind | None) -> Any:
    if kind is not None and kind.type == "hash":
        return pairs(reply) or None
    return Scores(pairs(reply)) if kind is not None and kind.type == "zset" else reply


def _lasting(keys: Keys, page: Iterable[str]) -> list[str]:
    """What stands in a page, without the stem; neither positions nor what expires."""
    return [
        key.removeprefix(keys.stem)
        for key in page
        if (kind := keys.kind_of(key)) is not None and kind.lasting
    ]


def _read(key: str, kind: Kind | None) -> Command:
    command, *rest = _READ[kind.type if kind else "string"]
    return (command, key, *rest)
