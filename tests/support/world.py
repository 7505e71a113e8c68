"""All of the write side in memory, with a scheduler that a test drives: real deciders, real reactions,
the shipped gateway in memory, and no Kafka.

Like Kafka it keeps the order within an aggregate's key and none between two. Everything else is up to
the test: what is delivered next, together, twice, or not at all, when the clock goes on, who crashes,
whose transaction fails, and which handlers have a bug.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import msgspec

from commands.aggregate import Decision, Loaded
from orderflow.placing import order_command
from payments.gateway import Charge, GatewayUnavailable
from payments.memory_gateway import MemoryGateway
from payments.reaction import Followup, Task, after_charge, after_refund
from payments.reaction import react as react_to_payment
from processors.decider import Decider
from processors.reactor import reactions
from processors.saga_decider import SagaDecider, appointment
from processors.state_store import PartitionState
from runtime.client import OutgoingCommand
from runtime.records import Headers, IncomingRecord, OutgoingRecord
from sagas import AGGREGATES
from sagas import by_name as aggregate_of
from schemas import headers
from schemas.ids import is_part_key
from schemas.records import decode_event, encode
from schemas.saga import SagaState
from schemas.topics import SAGA, Topics

TOPICS = Topics("w", partitions=1)
NOON_MS = 1_700_000_000_000
_AGGREGATE_OF = {TOPICS.commands(aggregate.name): aggregate.name for aggregate in AGGREGATES}
Place = tuple[str, bytes]
T = TypeVar("T")


class MemoryCopy:
    """A ``PartitionCopy`` in a dictionary."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def write(self, changes: Mapping[bytes, bytes | None], _: int) -> None:
        for key, value in changes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value

    def marked(self) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self.data.items():
            if (mark := appointment(value)) is not None:
                yield key, mark


class MemoryState:
    """A ``PartitionState`` in two dictionaries."""

    def __init__(self) -> None:
        self.states = MemoryCopy()
        self.inbox = MemoryCopy()


@dataclass(frozen=True)
class PaymentTask:
    """What the payments' outbox has to ask, and the event that it follows from."""

    task: Task
    event_id: str
    marks: Headers


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs it. Raises GatewayUnavailable for an answer that takes time (`tok_slow_0`): ask again."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    coroutine.close()
    raise GatewayUnavailable("no answer yet")


@dataclass
class World:
    """``queues``: commands by aggregate and key; ``heard``: the sagas' history by saga; ``asked``: the
    gateway's tasks by payment; ``sent``: every command there was; ``broken``: types of the commands
    whose handlers raise.
    """

    now_ms: int = NOON_MS
    queues: dict[Place, deque[IncomingRecord]] = field(default_factory=lambda: defaultdict(deque))
    heard: dict[bytes, deque[IncomingRecord]] = field(default_factory=lambda: defaultdict(deque))
    asked: dict[bytes, deque[PaymentTask]] = field(default_factory=lambda: defaultdict(deque))
    log: list[OutgoingRecord] = field(default_factory=list)
    sent: list[IncomingRecord] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    gateway: MemoryGateway = field(default_factory=MemoryGateway)

    def __post_init__(self) -> None:
        self.stores = {aggregate.name: MemoryState() for aggregate in AGGREGATES}
        self.deciders = {aggregate.name: self._decider(aggregate.name) for aggregate in AGGREGATES}

    def _decider(self, name: str) -> Decider:
        aggregate = aggregate_of[name]

        def decide(loaded: Loaded, command: Any) -> Decision:
            if type(command).__name__ in self.broken:
                raise ZeroDivisionError("a bug")
            return aggregate.decide(loaded, command)

        kind = SagaDecider if name == SAGA else Decider
        store = cast(PartitionState, self.stores[name])
        return kind(replace(aggregate, decide=decide), TOPICS, 0, store)

    # What a client does.

    def send(self, command: OutgoingCommand, *marks: tuple[str, bytes]) -> None:
        """A client sends a command, with these headers."""
        correlation = (command.correlation_id or command.command_id).encode()
        self._enqueue(
            TOPICS.commands(command.aggregate),
            command.aggregate_id.encode(),
            command.value(),
            [(headers.CORRELATION_ID, correlation), *marks],
        )

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
        self.deciders[name].committed(1, 1)
        self._route(records)
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
        self._enqueue(record.topic, record.key or b"", record.value, record.headers)

    def hear(self, key: bytes, *, twice: bool = False) -> None:
        """The reactor reads the next event of a saga; ``twice``, its transaction failed at that."""
        self._route(reactions(self.heard[key][0], TOPICS))
        if not twice:
            self.heard[key].popleft()

    def ask_gateway(self, key: bytes, *, twice: bool = False) -> None:
        """The outbox asks the gateway the next thing about a payment; without an answer, it stays.
        ``twice``: it is killed after it has sent what follows, so it will ask again.
        """
        queue = self.asked[key]
        work = queue[0]
        try:
            if isinstance(work.task, Charge):
                followups = after_charge(work.task, _now(self.gateway.charge(work.task)))
            else:
                followups = after_refund(work.task, _now(self.gateway.refund(work.task.key)))
        except GatewayUnavailable:
            if len(queue) > 1:
                queue.popleft()  # a refund waits behind it, and bars the key
            return
        if not twice:
            queue.popleft()
        for followup in followups:
            self._send_followup(key, followup, work)

    def tick(self, ms: int, *, lost: bool = False) -> None:
        """The clock goes on; what is due is sent, or ``lost`` with a transaction that fails."""
        self.now_ms += ms
        records = self.deciders[SAGA].due(self.now_ms)
        if lost:
            self._rewind(SAGA)
        else:
            self._route(records)

    def crash(self, name: str) -> None:
        """A processor is gone, and another reads its state from the topics."""
        self.deciders[name] = self._decider(name)
        self.deciders[name].ready()

    # What a test wants to know.

    def busy(self) -> list[tuple[str, Any]]:
        """What can be done next: ("deliver", place), ("hear", saga), ("ask", payment)."""
        return [
            *(("deliver", place) for place, queue in self.queues.items() if queue),
            *(("hear", key) for key, queue in self.heard.items() if queue),
            *(("ask", key) for key, queue in self.asked.items() if queue),
        ]

    def do(self, what: str, place: Any) -> None:
        """One of ``busy``."""
        match what:
            case "deliver":
                self.deliver(place)
            case "hear":
                self.hear(place)
            case _:
                self.ask_gateway(place)

    def states(self, name: str, kind: type[T]) -> dict[str, T]:
        """States of an aggregate's roots by id."""
        return {
            key.decode(): msgspec.json.decode(decode_event(value).state, type=kind)
            for key, value in self.stores[name].states.data.items()
            if not is_part_key(key.decode())
        }

    def saga(self, saga_id: str) -> SagaState:
        """A saga as it stands."""
        return self.states(SAGA, SagaState)[saga_id]

    def history(self, name: str, key: str) -> list[str]:
        """Types of an aggregate's events, in order."""
        topic = TOPICS.history(name)
        found = (r for r in self.log if r.topic == topic and r.key == key.encode())
        return [decode_event(record.value or b"").type for record in found]

    # Inside.

    def _take(self, places: tuple[Place, ...]) -> list[IncomingRecord]:
        return [self.queues[place].popleft() for place in places]

    def _put_back(self, places: tuple[Place, ...], taken: list[IncomingRecord]) -> None:
        for place, record in zip(reversed(places), reversed(taken), strict=True):
            self.queues[place].appendleft(record)

    def _decided(self, name: str, taken: list[IncomingRecord]) -> list[OutgoingRecord]:
        decider = self.deciders[name]
        return [*(one for record in taken for one in decider.decide(record)), *decider.seal()]

    def _rewind(self, name: str) -> None:
        self.deciders[name].discard()
        self.deciders[name].ready()

    def _enqueue(self, topic: str, key: bytes, value: bytes | None, marks: Headers) -> None:
        record = IncomingRecord(topic, 0, len(self.sent), self.now_ms, key, value, marks)
        self.sent.append(record)
        self.queues[_AGGREGATE_OF[topic], key].append(record)

    def _route(self, records: list[OutgoingRecord]) -> None:
        self.log += records
        for record in records:
            key = record.key or b""
            assert record.topic != TOPICS.dead_letters or self.broken, record
            if record.topic in _AGGREGATE_OF:
                self._enqueue(record.topic, key, record.value, _as_read(record.headers))
            elif record.topic == TOPICS.history(SAGA):
                marks = _as_read(record.headers)
                event = IncomingRecord(record.topic, 0, 0, 0, key, record.value, marks)
                self.heard[key].append(event)
            elif record.topic == TOPICS.history("payment"):
                paid = decode_event(record.value or b"")
                task = react_to_payment(key.decode(), paid)
                if task is not None:
                    self.asked[key].append(PaymentTask(task, paid.id, _as_read(record.headers)))

    def _send_followup(self, key: bytes, followup: Followup, work: PaymentTask) -> None:
        passed = [mark for mark in work.marks if mark[0] != headers.CAUSATION_ID]
        if not followup.answers:
            passed = [mark for mark in passed if mark[0] != headers.ANSWER_TO]
        marks = [*passed, (headers.CAUSATION_ID, work.event_id.encode())]
        self._enqueue(TOPICS.commands("payment"), key, encode(followup.command), marks)


def _as_read(marks: Headers) -> Headers:
    return [(name, v.encode() if isinstance(v, str) else v) for name, v in marks]
