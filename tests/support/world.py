"""The pipeline in memory with a scheduler that a test drives, and with everything that can go wrong.

What the shipped `MemoryPipeline` does in order, a test does as it likes: what is delivered next, together,
twice, or not at all, when the clock goes on, who crashes, whose transaction fails, and which handlers have
a bug.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from commands.aggregate import Aggregate, Decision, Loaded
from orderflow.memory_pipeline import TOPICS, MemoryPipeline, Place
from orderflow.placing import order_command
from processors.reactor import reactions
from runtime.records import IncomingRecord, OutgoingRecord
from schemas.rejections import Code, Rejection
from schemas.topics import SAGA
from tests.support.commanding import parking_order

__all__ = ["TOPICS", "Place", "World"]

NOON_MS = 1_700_000_000_000


@dataclass
class World(MemoryPipeline):
    """``broken``: types of the commands whose handlers raise; ``refusing``: that are refused in passing."""

    now_ms: int = NOON_MS
    broken: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)

    def aggregate(self, name: str) -> Aggregate:
        aggregate = super().aggregate(name)

        def decide(loaded: Loaded, command: Any) -> Decision:
            if type(command).__name__ in self.broken:
                raise ZeroDivisionError("a bug")
            if type(command).__name__ in self.refusing:
                return Rejection(Code.INTERNAL_ERROR, "not now")
            return aggregate.decide(loaded, command)

        return replace(aggregate, decide=decide)

    def settle_held(self, kind: str = "RetryParked") -> None:
        """An operator orders this about every command that holds a key now."""
        for held in self.held():
            self.send(parking_order(held.aggregate, held.aggregate_id, kind, held.offset))

    def place(self, order_id: str, **order: Any) -> None:
        """A client places an order."""
        self.send(order_command(order_id, **order))

    # What the scheduler may do.

    def deliver(self, *places: Place, twice: bool = False) -> None:
        """The next command of each of these keys of one aggregate, in one transaction; or, ``twice``,
        they come again after it.
        """
        name, taken = places[0][0], self._take(places)
        records = self._decided(name, taken)
        self.deciders[name].committed(1, 1, 1)
        self.route(records)
        if twice:
            self._put_back(places, taken)

    def abort(self, *places: Place) -> None:
        """The first is in a transaction that fails, the others stand on it: all are read again."""
        name, taken = places[0][0], self._take(places)
        self._decided(name, taken[:1])
        for record in taken[1:]:
            self.deciders[name].decide(record)
        self._put_back(places, taken)
        self._rewind(name)

    def lose(self, place: Place) -> None:
        """The next command of a key is never seen by anybody."""
        self.sent.remove(self.queues[place].popleft())

    def repeat(self, number: int) -> None:
        """A command that was sent before, of ``sent``, comes once more, behind all others of its key."""
        record = self.sent[number]
        self.enqueue(record.topic, record.key or b"", record.value, record.headers)

    def hear(self, key: bytes, *, twice: bool = False) -> None:
        """The reactor reads the next event of a saga; ``twice``, its transaction failed at that."""
        self.route(reactions(self.heard[key][0], TOPICS))
        if not twice:
            self.heard[key].popleft()

    def ask_gateway(self, key: bytes, *, twice: bool = False) -> bool:
        """As MemoryPipeline's. ``twice``: the outbox is killed after it has sent what follows, so it will
        ask again.
        """
        work = self.asked[key][0]
        answered = super().ask_gateway(key)
        if answered and twice:
            self.asked[key].appendleft(work)
        return answered

    def tick(self, ms: int, *, lost: bool = False) -> None:
        """The clock goes on; what is due is sent, or ``lost`` with a transaction that fails."""
        if not lost:
            super().tick(ms)
            return
        self.now_ms += ms
        self.deciders[SAGA].due(self.now_ms)
        self._rewind(SAGA)

    def crash(self, name: str) -> None:
        """A processor is gone, and another reads its state from the topics."""
        self.deciders[name] = self.new_decider(name)
        self.deciders[name].ready()

    def do(self, what: str, place: Any) -> None:
        """One of ``busy``."""
        match what:
            case "deliver":
                self.deliver(place)
            case "hear":
                self.hear(place)
            case _:
                self.ask_gateway(place)

    def route(self, records: list[OutgoingRecord]) -> None:
        for record in records:
            assert record.topic != TOPICS.dead_letters or self.broken, record
        super().route(records)

    # Inside.

    def _take(self, places: tuple[Place, ...]) -> list[IncomingRecord]:
        return [self.queues[place].popleft() for place in places]

    def _put_back(self, places: tuple[Place, ...], taken: list[IncomingRecord]) -> None:
        for place, record in zip(reversed(places), reversed(taken), strict=True):
            self.queues[place].appendleft(record)

    def _decided(self, name: str, taken: list[IncomingRecord]) -> list[OutgoingRecord]:
        decider = self.deciders[name]
        decided = [one for record in taken for one in decider.decide(record)]
        while decider.moving:
            decided += decider.due(self.now_ms)
        return [*decided, *decider.seal()]

    def _rewind(self, name: str) -> None:
        self.deciders[name].discard()
        self.deciders[name].ready()
