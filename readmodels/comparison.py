"""Is the rebuilt generation the same as the live one? Key for key, byte for byte.

Both move while they are compared, so what differs is looked at again, a bounded number of times. What
a view says is compared, not how Redis stores it: a hash has no order, markers of deletions expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from readmodels import generations
from readmodels.keys import Keys, Kind
from runtime.redis import Command, Line

ROUNDS: Final = 8
PAUSE_S: Final = 0.5
TOLD: Final = 100
"""Differences that are named; more are only counted."""

_READ: Final = {"hash": ("HGETALL",), "zset": ("ZRANGE", 0, -1, "WITHSCORES"), "string": ("GET",)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """``compared`` keys were looked at, ``differences`` of them differ, the first ones by name.

    ``skipped``: why nothing was compared, if so.
    """

    compared: int
    differences: int = 0
    differing: tuple[str, ...] = ()
    skipped: str = ""


def compare(line: Line, old: Keys, new: Keys, wait: Callable[[float], None]) -> Comparison:
    """Compare two generations; ``wait`` lets time pass while both go on."""
    compared = 0
    suspects: set[str] = set()
    for page in generations.pages(line, old):
        wanted = _lasting(old, page)
        compared += len(wanted)
        suspects |= _differing(line, old, new, wanted)
    for page in generations.pages(line, new):
        wanted = _lasting(new, page)
        suspects |= _missing(line, old, wanted)
    for _ in range(ROUNDS):
        if not suspects:
            break
        wait(PAUSE_S)
        suspects = _again(line, old, new, sorted(suspects))
    return Comparison(compared, len(suspects), tuple(sorted(suspects)[:TOLD]))


def _lasting(keys: Keys, page: Iterable[str]) -> list[str]:
    """What stands in a page, without the stem; neither positions nor what expires."""
    return [
        key.removeprefix(keys.stem)
        for key in page
        if (kind := keys.kind_of(key)) is not None and kind.lasting
    ]


def _again(line: Line, old: Keys, new: Keys, suspects: Sequence[str]) -> set[str]:
    size = generations.PAGE
    still: set[str] = set()
    for start in range(0, len(suspects), size):
        still |= _differing(line, old, new, suspects[start : start + size])
    return still


def _differing(line: Line, old: Keys, new: Keys, names: Sequence[str]) -> set[str]:
    before, after = _contents(line, old, names), _contents(line, new, names)
    return {name for name, x, y in zip(names, before, after, strict=True) if x != y}


def _missing(line: Line, old: Keys, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    there = line.run([("EXISTS", old.stem + name) for name in names])
    return {name for name, exists in zip(names, there, strict=True) if not exists}


def _contents(line: Line, keys: Keys, names: Sequence[str]) -> list[Any]:
    if not names:
        return []
    kinds = [keys.kind_of(keys.stem + name) for name in names]
    commands = [_read(keys.stem + name, kind) for name, kind in zip(names, kinds, strict=True)]
    replies = line.run(commands)
    return [
        sorted(zip(reply[::2], reply[1::2], strict=True)) if kind and kind.type == "hash" else reply
        for reply, kind in zip(replies, kinds, strict=True)
    ]


def _read(key: str, kind: Kind | None) -> Command:
    command, *rest = _READ[kind.type if kind else "string"]
    return (command, key, *rest)
