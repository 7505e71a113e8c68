"""Lines to a cluster: one connection to each master, and which slot is whose, neither replaced unseen.

A pipeline is sent to all nodes it is for before the first reply is read, so they work at the same time.
Commands to one node keep their order, those to different nodes have none.

The table of slots is read when the line opens and holds as long as its connections do. So data and what is
said of it afterwards in the same slot go to the same server, or the line fails: also when a replica that is
behind took a node's place, or a slot has moved. Everything is closed then, and the next run opens anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from redis.exceptions import RedisError

from runtime.redis.connecting import Address, ClusterUrl
from runtime.redis.line import (
    FIRST_CURSOR,
    AsyncLine,
    AsyncWire,
    Command,
    Line,
    Reply,
    Wire,
    raise_first,
)
from runtime.redis.slots import (
    ClusterUnready,
    Plan,
    Table,
    asked_elsewhere,
    own_part,
    refuse_passing,
)

_SLOTS: Final[Sequence[Command]] = [("CLUSTER", "SLOTS")]
_FAULTS: Final = (RedisError, OSError)


class ClusterLine(Line):
    """Stands wherever a `Line` may. ``follows``: ask for keys that have gone ahead of their slot where they
    are; not for who writes data and then a position, which could come to lie on different servers.
    """

    def __init__(self, url: str, *, text: bool = True, follows: bool = False) -> None:
        self._url = ClusterUrl.of(url)
        self._text = text
        self._follows = follows
        self._known = list(self._url.seeds)
        self._table: Table | None = None
        self._wires: dict[Address, Wire] = {}
        self._watched: Address | None = None

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """As `Line.run`. Raises ClusterUnready, too."""
        whole = False
        try:
            plan = Plan.of(commands, self._opened(), self._watched)
            for node, numbers in plan.by_node.items():
                self._wire_to(node).send([commands[number] for number in numbers])
            answers = {
                node: self._wire_to(node).receive(len(numbers))
                for node, numbers in plan.by_node.items()
            }
            replies = plan.gather(answers)
            if self._follows:
                for number, node in asked_elsewhere(replies):
                    self._wire_to(node).send([("ASKING",), commands[number]])
                    replies[number] = self._wire_to(node).receive(2)[1]
            refuse_passing(replies)
            self._watched = plan.watched
            whole = True
        finally:
            if not whole:  # see Line.run; and the table may be an old one
                self.close()
        return raise_first(replies)

    def scan(self, pattern: str, count: int) -> Iterator[list[str]]:
        """As `Line.scan`, node by node. Raises ClusterUnready, too: a slot that moves could be missed."""
        masters = self._opened().masters
        before = self._layout(masters)
        for node in masters:
            cursor = FIRST_CURSOR
            while True:
                cursor, page = self._on(node, ("SCAN", cursor, "MATCH", pattern, "COUNT", count))
                yield page
                if cursor == FIRST_CURSOR:
                    break
        if self._layout(masters) != before:
            self.close()
            raise ClusterUnready(ClusterUnready.__doc__)

    def close(self) -> None:
        """Drop all connections, and forget whose the slots are."""
        wires, self._wires = self._wires, {}
        self._table = self._watched = None
        for wire in wires.values():
            wire.close()

    def _layout(self, masters: Sequence[Address]) -> list[tuple[str, ...]]:
        said = [self._on(node, ("CLUSTER", "NODES")) for node in masters]
        try:
            return [own_part(text) for text in said]
        except ClusterUnready:
            self.close()
            raise

    def _on(self, node: Address, command: Command) -> Reply:
        whole = False
        try:
            self._wire_to(node).send([command])
            replies = self._wire_to(node).receive(1)
            whole = True
        finally:
            if not whole:
                self.close()
        return raise_first(replies)[0]

    def _wire_to(self, node: Address) -> Wire:
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = Wire(self._url.at(node), text=self._text)
        return wire

    def _opened(self) -> Table:
        if self._table is None:
            self._table = self._ask_for_table()
            self._known = list(dict.fromkeys([*self._known, *self._table.masters]))
        return self._table

    def _ask_for_table(self) -> Table:
        fault: Exception = ClusterUnready("no node of the cluster is known")
        for _ in range(len(self._known)):
            # Each time another one: what a node says that is cut off from the others is as old as that.
            self._known.append(node := self._known.pop(0))
            line = Line(self._url.at(node), text=self._text)
            try:
                return Table.of(line.run(_SLOTS)[0], node)
            except _FAULTS as error:
                fault = error
            finally:
                line.close()
        raise fault


class AsyncClusterLine(AsyncLine):
    """`ClusterLine` for asyncio; one run at a time."""

    def __init__(self, url: str, *, follows: bool = False) -> None:
        self._url = ClusterUrl.of(url)
        self._follows = follows
        self._known = list(self._url.seeds)
        self._table: Table | None = None
        self._wires: dict[Address, AsyncWire] = {}
        self._watched: Address | None = None

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """See `ClusterLine.run`."""
        whole = False
        try:
            plan = Plan.of(commands, await self._opened(), self._watched)
            for node, numbers in plan.by_node.items():
                await self._wire_to(node).send([commands[number] for number in numbers])
            answers = {
                node: await self._wire_to(node).receive(len(numbers))
                for node, numbers in plan.by_node.items()
            }
            replies = plan.gather(answers)
            if self._follows:
                for number, node in asked_elsewhere(replies):
                    await self._wire_to(node).send([("ASKING",), commands[number]])
                    replies[number] = (await self._wire_to(node).receive(2))[1]
            refuse_passing(replies)
            self._watched = plan.watched
            whole = True
        finally:
            if not whole:  # also when cancelled: see ClusterLine.run
                await self.close()
        return raise_first(replies)

    async def close(self) -> None:
        """Drop all connections, and forget whose the slots are."""
        wires, self._wires = self._wires, {}
        self._table = self._watched = None
        for wire in wires.values():
            await wire.close()

    def _wire_to(self, node: Address) -> AsyncWire:
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = AsyncWire(self._url.at(node))
        return wire

    async def _opened(self) -> Table:
        if self._table is None:
            self._table = await self._ask_for_table()
            self._known = list(dict.fromkeys([*self._known, *self._table.masters]))
        return self._table

    async def _ask_for_table(self) -> Table:
        fault: Exception = ClusterUnready("no node of the cluster is known")
        for _ in range(len(self._known)):
            self._known.append(node := self._known.pop(0))
            line = AsyncLine(self._url.at(node))
            try:
                return Table.of((await line.run(_SLOTS))[0], node)
            except _FAULTS as error:
                fault = error
            finally:
                await line.close()
        raise fault
