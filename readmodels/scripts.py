"""The Lua scripts under `lua/`, by name, and how to call one.

Called by their hash. A server that does not know the hash (restarted, flushed) says NOSCRIPT before
anything has run; `steps` then loads all of them and repeats the pipeline: every script may be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from readmodels.keys import MARKER_SECONDS
from runtime.redis import Command

_FOLDER: Final = Path(__file__).with_name("lua")
_encode: Final = msgspec.msgpack.Encoder().encode

CALL_LIMIT: Final = 100
"""Most changes in one call: Redis serves nobody else meanwhile, and Lua's stack bounds the arguments."""


@dataclass(frozen=True)
class Script:
    """One script. Its header says what it wants and what it returns. ``uses``: files put before it."""

    name: str
    uses: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The Lua source."""
        files = (*self.uses, self.name)
        return "".join((_FOLDER / f"{file}.lua").read_text(encoding="utf-8") for file in files)

    @cached_property
    def sha(self) -> str:
        """What Redis calls it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *args: str | bytes | int) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


POSITION: Final = Script("position")
DOCUMENT: Final = Script("document", uses=("stamp", "news", "sorted"))
PLACE: Final = Script("place")
ORDER: Final = Script("order", uses=("stamp", "news", "sorted"))
SWITCH: Final = Script("switch")
LOCK: Final = Script("lock")
HISTORY: Final = Script("history")

SCRIPTS: Final = (POSITION, DOCUMENT, PLACE, ORDER, SWITCH, LOCK, HISTORY)


def load_commands() -> list[Command]:
    """Makes a server know all scripts."""
    return [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]


class ChangeCall:
    """The changes of one call; keys are listed once and named by their index."""

    __slots__ = ("_changes", "_index", "ids")

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._index: dict[str, int] = {}  # in the order of the indices
        self._changes: list[tuple[Any, ...]] = []

    def key(self, name: str) -> int:
        """The index of a key, counted from 1 as Lua does."""
        return self._index.setdefault(name, len(self._index) + 1)

    def add(self, identity: str, *change: Any) -> None:
        """One change of an aggregate, in the shape that the script's header describes."""
        self.ids.append(identity)
        self._changes.append(change)

    def command(self, script: Script) -> Command:
        """The call, for the scripts whose arguments are a marker's lifetime and a list of changes."""
        return script.call(list(self._index), MARKER_SECONDS, _encode(self._changes))


class BucketCalls:
    """Calls by bucket, further ones for a bucket that has many changes.

    ``first`` gives the keys with which every call of a bucket begins.
    """

    def __init__(self, first: Callable[[int], tuple[str, ...]] = lambda _: ()) -> None:
        self.calls: list[ChangeCall] = []
        self._first = first
        self._open: dict[int, ChangeCall] = {}

    def of(self, bucket: int) -> ChangeCall:
        """The call to which the next change of this bucket belongs."""
        call = self._open.get(bucket)
        if call is None or len(call.ids) >= CALL_LIMIT:
            call = self._open[bucket] = ChangeCall()
            for key in self._first(bucket):
                call.key(key)
            self.calls.append(call)
        return call

    def commands(self, script: Script) -> list[Command]:
        """One pipeline."""
        return [call.command(script) for call in self.calls]
