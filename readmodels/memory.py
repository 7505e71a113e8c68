"""The views' Redis without Redis: what `projections` write and `questions` ask, in dictionaries.

For tests of services, and for a pipeline in one process (`orderflow.bus`). Projections, keys, rankings
and questions are the real ones, because they only know conversations (`steps`); what stands here instead
is the store: the few commands that they use, and the scripts in ``lua/`` once more in Python
(`memory_scripts`). The invariant: the same conversation leaves the same keys and gets the same replies as
on Redis. tests/property/test_views.py holds the two together.

Not kept: expiry (a deletion is remembered for ever, not for a day), and positions, which are a worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from readmodels.keys import FIRST_GENERATION, Keys
from readmodels.memory_scripts import RUN, Data, Hash, ZSet
from readmodels.records import Headers, read
from readmodels.steps import drive
from readmodels.views import VIEWS
from runtime.redis import Command, Reply

_decode: Final = msgspec.msgpack.Decoder().decode
T = TypeVar("T")


class UnknownCommand(NotImplementedError):
    """A command that no view's conversation has used so far: it has to be added to readmodels/memory.py."""


class MemoryRedis:
    """A `steps.Runner`. Not thread-safe."""

    def __init__(self) -> None:
        self._data: Data = {}

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """The replies. Raises UnknownCommand."""
        return [self._answer(str(command[0]), command[1:]) for command in commands]

    def content(self, keys: Keys) -> dict[str, Any]:
        """What a generation says, key by key without its stem: text, fields, or members by score; without
        the markers of deletions.
        """
        found: dict[str, Any] = {}
        for name, value in self._data.items():
            kind = keys.kind_of(name) if name.startswith(keys.stem) else None
            if kind is not None and kind.lasting:
                shown = _ranked(value) if kind.type == "zset" and isinstance(value, dict) else value
                found[name.removeprefix(keys.stem)] = shown
        return found

    def _answer(self, name: str, arguments: tuple[str | bytes | int, ...]) -> Reply:
        if name == "EVALSHA":
            sha, count, *rest = arguments
            keys, (_ttl, changes) = rest[: int(count)], rest[int(count) :]
            return RUN[str(sha)](self._data, [str(key) for key in keys], _decode(bytes(changes)))  # type: ignore[arg-type]
        answer = _COMMANDS.get(name)
        if answer is None:
            raise UnknownCommand(f"{name}: {UnknownCommand.__doc__}")
        return answer(self._data, *(str(argument) for argument in arguments))


class AsyncMemoryRedis:
    """The same data as a `steps.AsyncRunner`."""

    def __init__(self, store: MemoryRedis) -> None:
        self._store = store

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """As MemoryRedis.run."""
        return self._store.run(commands)


class MemoryProjector:
    """Brings the records of events topics into every view, one by one, as a projector does by batches."""

    def __init__(self, store: MemoryRedis, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def record(
        self, aggregate: str, key: bytes | None, value: bytes | None, headers: Headers = None
    ) -> None:
        """One record of an aggregate's events topic. Raises Unreadable."""
        for view in VIEWS:
            if view.aggregate != aggregate:
                continue
            change = read(key, value, headers, view.states, view.project)
            if change is not None:
                keys = Keys(self._prefix, view.name, FIRST_GENERATION)
                drive(self._store, view.apply(keys, [change]))


# The commands. Replies have the shapes of RESP2, which are those that `questions` reads.


def _get(data: Data, key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) else None


def _hash(data: Data, key: str) -> Hash:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _hgetall(data: Data, key: str) -> list[str]:
    return [text for field in _hash(data, key).items() for text in field]


def _hget(data: Data, key: str, field: str) -> str | None:
    return _hash(data, key).get(field)


def _hmget(data: Data, key: str, *fields: str) -> list[str | None]:
    return [_hash(data, key).get(field) for field in fields]


def _ranked(ranking: ZSet) -> list[tuple[str, float]]:
    """By score, then by member as Redis compares: by bytes."""
    return sorted(ranking.items(), key=lambda item: (item[1], item[0].encode()))


def _ranking(data: Data, key: str) -> list[tuple[str, float]]:
    value = data.get(key)
    return _ranked(value) if isinstance(value, dict) else []


def _scored(found: list[tuple[str, float]]) -> list[str]:
    return [text for member, score in found for text in (member, f"{score:.17g}")]


def _zrange(data: Data, key: str, first: str, last: str, _with_scores: str) -> list[str]:
    return _scored(_ranking(data, key)[int(first) : int(last) + 1])


def _zrevrange(data: Data, key: str, first: str, last: str, _with_scores: str) -> list[str]:
    return _scored(_ranking(data, key)[::-1][int(first) : int(last) + 1])


def _zrangebyscore(data: Data, key: str, low: str, high: str, *more: str) -> list[str]:
    return _scored(_page(_between(data, key, low, high), more))


def _zrevrangebyscore(data: Data, key: str, high: str, low: str, *more: str) -> list[str]:
    return _scored(_page(_between(data, key, low, high)[::-1], more))


def _between(data: Data, key: str, low: str, high: str) -> list[tuple[str, float]]:
    return [item for item in _ranking(data, key) if float(low) <= item[1] <= float(high)]


def _page(found: list[T], more: tuple[str, ...]) -> list[T]:
    """``more`` ends with how many are skipped and how many are wanted, as `LIMIT` has them."""
    skip, count = map(int, more[-2:])
    return found[skip : skip + count]


def _zrevrangebylex(data: Data, key: str, begin: str, _end: str, *more: str) -> list[str]:
    """``begin``: ``+``, or ``(`` and the member after which it goes on; it always goes to the end."""
    members = [member for member, _ in _ranking(data, key)][::-1]
    if begin != "+":
        members = [m for m in members if m.encode() < begin[1:].encode()]
    return _page(members, more)


_COMMANDS: Final[dict[str, Callable[..., Reply]]] = {
    "GET": _get,
    "HGET": _hget,
    "HMGET": _hmget,
    "HGETALL": _hgetall,
    "ZRANGE": _zrange,
    "ZREVRANGE": _zrevrange,
    "ZRANGEBYSCORE": _zrangebyscore,
    "ZREVRANGEBYSCORE": _zrevrangebyscore,
    "ZREVRANGEBYLEX": _zrevrangebylex,
}
