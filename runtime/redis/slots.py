"""Which node of a cluster a command is for, and how the nodes' replies become those of one pipeline. Pure.

A command goes to the master of its first key's slot; that all its keys are in one slot is for its writer to
see to, and the server refuses it otherwise. One without a key is in `_EVERYWHERE` or `_AFTER_WATCH`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Self

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, RedisError, TryAgainError

from runtime.redis.connecting import Address
from runtime.redis.line import Command, Reply

_EVERYWHERE: Final = ("SCRIPT", "INFO", "BGREWRITEAOF")
_AFTER_WATCH: Final = ("MULTI", "EXEC", "UNWATCH")
"""Of a transaction that began with WATCH on this line: all of it is about one slot."""

_PASSING: Final = (AskError, TryAgainError, ClusterDownError)  # MovedError is an AskError


class ClusterUnready(redis.ConnectionError):
    """A slot is being moved, or the node that serves it is being replaced: it goes by itself, try again."""


@dataclass(frozen=True, slots=True)
class Table:
    """The master of each slot, as one node said."""

    owners: tuple[Address, ...]

    @classmethod
    def of(cls, ranges: Sequence[Sequence[Any]], asked: Address) -> Self:
        """Of the answer to CLUSTER SLOTS: first and last slot, then its master's host, port, …; a node may
        leave out its own host. Raises ClusterUnready for slots that nobody serves.
        """
        owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_replicas in ranges:
            name = host.decode() if isinstance(host, bytes) else host
            owners.update(dict.fromkeys(range(first, last + 1), (name or asked[0], int(port))))
        if len(owners) < SLOTS:
            raise ClusterUnready(f"slots that nobody serves. {ClusterUnready.__doc__}")
        return cls(tuple(owners[slot] for slot in range(SLOTS)))

    @property
    def masters(self) -> tuple[Address, ...]:
        """All of them, in the order of their slots."""
        return tuple(dict.fromkeys(self.owners))

    def owner(self, key: str | bytes | int) -> Address:
        """Who serves this key."""
        return self.owners[slot_of(key)]


@dataclass(slots=True)
class Plan:
    """What is sent to whom: node → the numbers of the commands, in their order.

    ``watched``: where the line's last WATCH went.
    """

    by_node: dict[Address, list[int]] = field(default_factory=dict)
    watched: Address | None = None

    @classmethod
    def of(cls, commands: Sequence[Command], table: Table, watched: Address | None) -> Self:
        """Which node gets which of the commands."""
        plan = cls(watched=watched)
        for number, command in enumerate(commands):
            for node in plan._nodes(command, table):
                plan.by_node.setdefault(node, []).append(number)
        return plan

    def _nodes(self, command: Command, table: Table) -> tuple[Address, ...]:
        name = command[0]
        if name in _EVERYWHERE:
            return table.masters
        if name in _AFTER_WATCH:
            assert self.watched is not None, f"{name!r} on a cluster, without a WATCH before it"
            return (self.watched,)
        owner = table.owner(command[3] if name == "EVALSHA" else command[1])
        if name == "WATCH":
            self.watched = owner
        return (owner,)

    def gather(self, answers: dict[Address, list[Reply]]) -> list[Reply]:
        """One reply for each command, in their order. ``answers``: of each node, in the order of its own."""
        found: dict[int, list[Reply]] = {}
        for node, numbers in self.by_node.items():
            for number, reply in zip(numbers, answers[node], strict=True):
                found.setdefault(number, []).append(reply)
        return [_one(found[number]) for number in sorted(found)]


def _one(replies: list[Reply]) -> Reply:
    """Of a command that went everywhere: an error if there is one; the same said by all; else all texts."""
    first = replies[0]
    if len(replies) == 1:
        return first
    errors = [reply for reply in replies if isinstance(reply, RedisError)]
    if errors or all(reply == first for reply in replies):
        return errors[0] if errors else first
    return first[:0].join(replies)


def slot_of(key: str | bytes | int) -> int:
    """The slot of a key: of its hash tag, if it has one."""
    data = key if isinstance(key, bytes) else str(key).encode()
    begin = data.find(b"{")
    end = data.find(b"}", begin + 1)
    return _slot(data[begin : end + 1] if 0 <= begin < end - 1 else data)


@lru_cache(maxsize=4_096)
def _slot(tag: bytes) -> int:
    return key_slot(tag)


def refuse_passing(replies: Sequence[Reply]) -> None:
    """Raises ClusterUnready if one of them says that the slots are not where they were thought to be."""
    for reply in replies:
        if isinstance(reply, _PASSING):
            raise ClusterUnready(f"{type(reply).__name__}: {reply}") from reply


def asked_elsewhere(replies: Sequence[Reply]) -> list[tuple[int, Address]]:
    """Number of the command and whom to ask: keys that have gone ahead of their slot."""
    return [
        (number, (reply.host, reply.port))
        for number, reply in enumerate(replies)
        if type(reply) is AskError
    ]


def own_part(nodes: str) -> tuple[str, ...]:
    """What CLUSTER NODES says of the node that was asked: id, epoch of its slots, slots. Raises
    ClusterUnready while a slot is on its way from or to it, or if it is no master.
    """
    for line in nodes.splitlines():
        name, _, flags, _, _, _, epoch, _, *slots = line.split()
        if "myself" in flags:
            if "master" not in flags or any(slot.startswith("[") for slot in slots):
                raise ClusterUnready(ClusterUnready.__doc__)
            return (name, epoch, *slots)
    raise ClusterUnready(ClusterUnready.__doc__)
