"""The index of positions: where each event of each stream stands on its topic, kept in Redis.

It says where, never what: the records are fetched from Kafka. All of it follows from the topics, so losing
it costs the time to read them again and nothing else; ``eventstore/indexer.py`` builds it.

    <prefix>:history-index          string  the epoch: a random name that the keys of this index have in them
    <prefix>:history-index:worker   string  expires: somebody keeps the index up to date all the time

and, each after ``<prefix>:history-index:<epoch>:`` (on a cluster, ``{<prefix>:history-index}:<epoch>:``),

    topics            hash    a topic's id → its number; a topic made anew has another
    positions         hash    <number>:<partition> → next offset to index
    stream:<n>:<id>   string  8 bytes an event, in order of version: offset + 1
    refused:<n>:<id>  zset    commands that an aggregate refused, by time, the newest 1,000
    talk:<id>         set     places of the events and dead letters of a conversation
    recent:<id>       set     places of its commands and outcomes, while they last
    aside             zset    places of records on history topics that are no events of a stream: those that
                              cannot be read, and those whose version is not the next one; the newest 1,000

A Redis that was emptied gets another epoch, so a process that remembers the old one can neither read from
the new index with old numbers nor write to it.

A place is one integer, so that Redis keeps the sets of small conversations as arrays of integers. Writing
the same place twice changes nothing: any number of processes may index the same records.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

import msgspec

from readmodels import positions
from readmodels.scripts import CALL_LIMIT, HISTORY, POSITION
from readmodels.steps import Steps
from runtime.redis import Command, is_cluster, pooled
from runtime.settings import Settings

ENTRY_BYTES: Final = 8
REFUSED_KEPT: Final = 1_000
"""Of one aggregate; a hot one is refused many times a second."""

ASIDE_KEPT: Final = 1_000
"""Records on history topics that are no events; more of them are only more of the same."""

_PARTITION_BITS: Final = 12
_OFFSET_BITS: Final = 42
MAX_PARTITIONS: Final = 1 << _PARTITION_BITS
"""9 bits for the topic and 42 for the offset leave so many, in an integer that Redis stores in 8 bytes."""


class Place(NamedTuple):
    """A record's place; ``topic`` is the number under which the index knows the topic."""

    topic: int
    partition: int
    offset: int

    def packed(self) -> int:
        """As one integer."""
        return ((self.topic << _PARTITION_BITS) + self.partition << _OFFSET_BITS) + self.offset

    @classmethod
    def unpacked(cls, packed: int) -> Place:
        """The place that an integer stands for."""
        rest, offset = divmod(packed, 1 << _OFFSET_BITS)
        return cls(*divmod(rest, MAX_PARTITIONS), offset)


def epoch_key(prefix: str) -> str:
    """Where the name of the index that counts stands."""
    return f"{prefix}:history-index"


def stem(prefix: str, *, together: bool = False) -> str:
    """What the keys of every index begin with, before a colon and the epoch; see `IndexKeys`."""
    return f"{{{epoch_key(prefix)}}}" if together else epoch_key(prefix)


def worker_key(prefix: str) -> str:
    """Is there while a worker lives."""
    return f"{prefix}:history-index:worker"


class IndexKeys:
    """The keys of one index. ``together``: all of them in one slot of a cluster, and the epoch with them (a
    key and the same text in braces share one), so that what holds of one server holds there.
    """

    def __init__(self, prefix: str, epoch: str, *, together: bool = False) -> None:
        self.epoch = epoch
        self._stem = f"{stem(prefix, together=together)}:{epoch}:"
        self.topics = f"{self._stem}topics"
        self.positions = f"{self._stem}positions"
        self.aside = f"{self._stem}aside"

    def stream(self, topic: int, identity: str) -> str:
        """Offsets of one stream."""
        return f"{self._stem}stream:{topic}:{identity}"

    def refused(self, topic: int, identity: str) -> str:
        """Outcomes that refused a command for one aggregate; ``topic`` is that of the outcomes."""
        return f"{self._stem}refused:{topic}:{identity}"

    def talk(self, correlation_id: str) -> str:
        """What stays of a conversation."""
        return f"{self._stem}talk:{correlation_id}"

    def recent(self, correlation_id: str) -> str:
        """What of a conversation expires."""
        return f"{self._stem}recent:{correlation_id}"


def current_epoch(prefix: str) -> Steps[str]:
    """The epoch of the index that counts; a new one where there is none."""
    replies = yield [
        ("SET", epoch_key(prefix), uuid.uuid4().hex, "NX"),
        ("GET", epoch_key(prefix)),
    ]
    return str(replies[1])


def number(keys: IndexKeys, ids: Sequence[str]) -> Steps[dict[str, int]]:
    """The number of each topic id; one that is new here gets the next one."""
    (found,) = yield [("HMGET", keys.topics, *ids)]
    for topic_id, known in zip(ids, found, strict=True):
        if known is None:
            # A number that two processes take at once for the same topic is left unused by one of them.
            (fresh,) = yield [("HINCRBY", keys.topics, "last", 1)]
            yield [("HSETNX", keys.topics, topic_id, fresh)]
    (known_now,) = yield [("HMGET", keys.topics, *ids)]
    return {topic_id: int(number) for topic_id, number in zip(ids, known_now, strict=True)}


def read_positions(keys: IndexKeys) -> Steps[dict[tuple[int, int], int]]:
    """(topic's number, partition) → next offset to index."""
    (flat,) = yield [("HGETALL", keys.positions)]
    listed = zip(flat[::2], flat[1::2], strict=True)
    found = {positions.part(name): int(offset) for name, offset in listed}
    return {(int(topic), partition): offset for (topic, partition), offset in found.items()}


def begin(keys: IndexKeys, starts: Mapping[tuple[int, int], int]) -> Steps[None]:
    """Set the positions that are missing; a missing one later means that Redis was emptied."""
    yield [("HSETNX", keys.positions, _field(place), offset) for place, offset in starts.items()]


class Entries:
    """What some records add to the index; ``commands`` may be repeated."""

    def __init__(self, keys: IndexKeys) -> None:
        self._keys = keys
        self._events: list[tuple[str, int, int, int, str]] = []
        self._writes: list[Command] = []
        self._sets: dict[str, list[int]] = {}
        self._lives: dict[str, int] = {}

    def event(self, at: Place, stream_id: str, version: int, missing: int = 0) -> None:
        """An event of a stream. ``missing``: how many records of the partition are gone."""
        key = self._keys.stream(at.topic, stream_id)
        self._events.append((key, version, at.offset + 1, missing, str(at.packed())))

    def aside(self, at: Place) -> None:
        """A record on a history topic that is no event."""
        self._writes.append(("ZADD", self._keys.aside, at.packed(), at.packed()))
        self._writes.append(("ZREMRANGEBYRANK", self._keys.aside, 0, -ASIDE_KEPT - 1))

    def talk(self, at: Place, correlation_id: str) -> None:
        """A record that stays, of a conversation."""
        self._sets.setdefault(self._keys.talk(correlation_id), []).append(at.packed())

    def recent(self, at: Place, correlation_id: str, life_ms: int) -> None:
        """A record that is kept for so many milliseconds."""
        key = self._keys.recent(correlation_id)
        self._sets.setdefault(key, []).append(at.packed())
        self._lives[key] = life_ms

    def refused(self, at: Place, aggregate_id: str, at_ms: int, life_ms: int) -> None:
        """A command that was refused."""
        key = self._keys.refused(at.topic, aggregate_id)
        self._writes.append(("ZADD", key, at_ms, at.packed()))
        self._writes.append(("ZREMRANGEBYRANK", key, 0, -REFUSED_KEPT - 1))
        self._lives[key] = life_ms

    def commands(self) -> list[Command]:
        """One pipeline."""
        events = self._events
        placed = [
            self._placed(events[begin : begin + CALL_LIMIT])
            for begin in range(0, len(events), CALL_LIMIT)
        ]
        added: list[Command] = [("SADD", key, *places) for key, places in self._sets.items()]
        kept: list[Command] = [("PEXPIRE", key, life) for key, life in self._lives.items()]
        return [*placed, *self._writes, *added, *kept]

    def _placed(self, events: Iterable[tuple[str, int, int, int, str]]) -> Command:
        index = {self._keys.aside: 1}
        listed: list[tuple[Any, ...]] = []
        for key, *event in events:
            listed.append((index.setdefault(key, len(index) + 1), *event))
        return HISTORY.call(list(index), ASIDE_KEPT, msgspec.msgpack.encode(listed))


def write(
    keys: IndexKeys, entries: Entries, covers: Mapping[tuple[int, int], tuple[int, int]]
) -> Steps[bool]:
    """Entries first, then the positions that cover them: place → first offset, and the one after the last.

    False when Redis has not what lies before; then indexing resumes at what it has.
    """
    moves = [
        POSITION.call([keys.positions], _field(place), start, after)
        for place, (start, after) in covers.items()
    ]
    replies = yield [*entries.commands(), *moves]
    reached = replies[len(replies) - len(moves) :]
    return all(int(at) >= after for at, (_, after) in zip(reached, covers.values(), strict=True))


def add(entries: Entries) -> Steps[None]:
    """Entries without their positions: more of the same partition follow."""
    yield entries.commands()


def probe(keys: IndexKeys) -> Steps[None]:
    """Write nothing, by a command that writes: a server that is full or read-only refuses it."""
    yield [("SETRANGE", f"{keys.positions}:probe", 0, "")]


def offsets_of(entries: bytes) -> list[int | None]:
    """Offsets of consecutive versions; None for one that is not indexed."""
    return [offset - 1 if offset else None for (offset,) in struct.iter_unpack(">q", entries)]


def places_of(members: Iterable[str | bytes]) -> list[Place]:
    """Of a set, in order of topic, partition and offset."""
    return [Place.unpacked(member) for member in sorted(map(int, members))]


def aside(settings: Settings) -> list[Place]:
    """The newest records on history topics that are no events of a stream, as far as there is an index.

    Raises RedisError.
    """
    with closing(pooled(settings)) as redis:
        (epoch,) = redis.run([("GET", epoch_key(settings.topic_prefix))])
        if epoch is None:
            return []
        keys = IndexKeys(settings.topic_prefix, epoch, together=is_cluster(settings))
        (members,) = redis.run([("ZRANGE", keys.aside, 0, -1)])
    return places_of(members)


def _field(place: tuple[int, int]) -> str:
    return positions.field((str(place[0]), place[1]))
