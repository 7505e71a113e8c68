"""The whole write side in one process and in memory: real deciders, real reactions, the shipped gateway,
no Kafka.

Public: `orderflow.bus.in_process_bus` stands on it, and so do tests that want every step in their own
hand. As on Kafka, the order within an aggregate's key is kept, what a decision writes stands together or
not at all, and nothing holds between two aggregates. Nothing moves by itself: ``settle`` does all that can
be done now, ``tick`` lets time pass. The invariant: the same commands at the same times give the same
records, byte for byte.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar, cast

from commands.aggregate import Aggregate
from payments.gateway import Charge, GatewayUnavailable
from payments.memory_gateway import MemoryGateway
from payments.reaction import Followup, Task, after_charge, after_refund
from payments.reaction import react as react_to_payment
from processors.decider import Decider
from processors.memory import MemoryState
from processors.reactor import reactions
from processors.saga_decider import SagaDecider, appointment
from runtime.client import OutgoingCommand
from runtime.records import Headers, IncomingRecord, OutgoingRecord, occurred_at_ms
from sagas import AGGREGATES
from sagas import by_name as aggregate_of
from schemas import headers
from schemas.decoding import decoder
from schemas.ids import is_part_key
from schemas.parking import Parked, decode_parked, read_parked_key
from schemas.personal import KEY_BYTES
from schemas.records import decode_event, encode
from schemas.saga import SagaState
from schemas.topics import SAGA, Topics

TOPICS: Final = Topics("memory", partitions=1)
SCOPE: Final = "5c0be0000000"
"""Always the same one, so that the same commands give the same records."""

_AGGREGATE_OF: Final = {TOPICS.commands(aggregate.name): aggregate.name for aggregate in AGGREGATES}

Place = tuple[str, bytes]
"""An aggregate's name and a key: whose commands keep their order."""

Item = tuple[str, Any]
"""What can be done next: ("deliver", place), ("hear", saga's key), ("ask", payment's key)."""

Asked = tuple[str, int]
"""Which task of a payment was asked, and how many there were: with another behind it, it is asked again."""

T = TypeVar("T")


@dataclass(frozen=True)
class PaymentTask:
    """What the payments' outbox has to ask, and the event that it follows from."""

    task: Task
    event_id: str
    marks: Headers


class Held(NamedTuple):
    """A command that holds its aggregate's key; ``offset``: its number on the commands topic."""

    aggregate: str
    aggregate_id: str
    offset: int
    command: Parked


@dataclass
class MemoryPipeline:
    """Not thread-safe.

    ``now_ms``: the time, epoch milliseconds UTC. ``queues``: commands by aggregate and key; ``heard``: the
    sagas' history by saga; ``asked``: the gateway's tasks by payment; ``log``: every record that was
    committed; ``sent``: every command there was; ``listeners`` are told each record once it is committed.
    """

    now_ms: int
    queues: dict[Place, deque[IncomingRecord]] = field(default_factory=lambda: defaultdict(deque))
    heard: dict[bytes, deque[IncomingRecord]] = field(default_factory=lambda: defaultdict(deque))
    asked: dict[bytes, deque[PaymentTask]] = field(default_factory=lambda: defaultdict(deque))
    log: list[OutgoingRecord] = field(default_factory=list)
    sent: list[IncomingRecord] = field(default_factory=list)
    gateway: MemoryGateway = field(default_factory=MemoryGateway)
    listeners: list[Callable[[OutgoingRecord], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._offsets = count()
        self.stores = {
            aggregate.name: MemoryState(appointment if aggregate.name == SAGA else None)
            for aggregate in AGGREGATES
        }
        self.deciders = {name: self.new_decider(name) for name in self.stores}

    def aggregate(self, name: str) -> Aggregate:
        """The rules by which an aggregate's commands are decided."""
        return aggregate_of[name]

    def new_decider(self, name: str) -> Decider:
        """A processor that knows what is committed and nothing else."""
        if name == SAGA:
            return SagaDecider(self.aggregate(name), TOPICS, 0, self.stores[name], scope=SCOPE)
        return Decider(self.aggregate(name), TOPICS, 0, self.stores[name], _key_of, scope=SCOPE)

    def send(self, command: OutgoingCommand, *marks: tuple[str, bytes]) -> None:
        """A client sends a command, with these headers besides its own. Raises CommandTooLarge."""
        key, value = command.aggregate_id.encode(), command.value()
        self.enqueue(TOPICS.commands(command.aggregate), key, value, command.marks(*marks))

    # What can be done, one thing at a time.

    def deliver(self, place: Place) -> None:
        """The next command of a key, in a transaction of its own."""
        name, record = place[0], self.queues[place].popleft()
        decider = self.deciders[name]
        records = decider.decide(record)
        while decider.moving:
            records += decider.due(self.now_ms)
        records += decider.seal()
        decider.committed(1, 1, 1)
        self.route(records)

    def hear(self, key: bytes) -> None:
        """The reactor reads the next event of a saga."""
        self.route(reactions(self.heard[key].popleft(), TOPICS))

    def ask_gateway(self, key: bytes) -> bool:
        """The outbox asks the gateway the next thing about a payment; False without an answer: it stays."""
        followups = self.gateways_answer(key)
        if followups is None:
            return False
        work = self.asked[key].popleft()
        for followup in followups:
            self.send_followup(key, followup, work)
        return True

    def tick(self, ms: int) -> None:
        """The clock goes on; what is due is sent."""
        self.now_ms += ms
        self.route(self.deciders[SAGA].due(self.now_ms))

    def busy(self) -> list[Item]:
        """What can be done next."""
        return [
            *(("deliver", place) for place, queue in self.queues.items() if queue),
            *(("hear", key) for key, queue in self.heard.items() if queue),
            *(("ask", key) for key, queue in self.asked.items() if queue),
        ]

    def settle(self) -> None:
        """Does all that can be done without time passing; a gateway that does not answer is asked once."""
        mute: dict[bytes, Asked] = {}
        while todo := [item for item in self.busy() if not self._is_mute(item, mute)]:
            for what, place in todo:
                match what:
                    case "deliver":
                        self.deliver(place)
                    case "hear":
                        self.hear(place)
                    case _:
                        before = self._asked(place)
                        if not self.ask_gateway(place):
                            mute[place] = before

    def _is_mute(self, item: Item, mute: dict[bytes, Asked]) -> bool:
        what, place = item
        return what == "ask" and mute.get(place) == self._asked(place)

    def _asked(self, key: bytes) -> Asked:
        queue = self.asked[key]
        return queue[0].event_id, len(queue)

    # What there is.

    def states(self, name: str, kind: type[T]) -> dict[str, T]:
        """States of an aggregate's roots by id."""
        return {
            key.decode(): decoder(kind)(decode_event(value).state)
            for key, value in self.stores[name].states.data.items()
            if not is_part_key(key.decode())
        }

    def held(self) -> list[Held]:
        """The keys that are held by a command which could not be judged."""
        return [
            Held(name, place[0].decode(), parked.offset, parked)
            for name, store in self.stores.items()
            for key, value in store.parked.data.items()
            if (parked := decode_parked(value)).attempts and (place := read_parked_key(key))
        ]

    def saga(self, saga_id: str) -> SagaState:
        """A saga as it stands. Raises KeyError."""
        return self.states(SAGA, SagaState)[saga_id]

    def history(self, name: str, key: str) -> list[str]:
        """Types of an aggregate's events, in order."""
        topic = TOPICS.history(name)
        found = (r for r in self.log if r.topic == topic and r.key == key.encode())
        return [decode_event(record.value or b"").type for record in found]

    # How it hangs together; for who schedules the steps in another way.

    def enqueue(self, topic: str, key: bytes, value: bytes | None, marks: Headers) -> None:
        """A command is on its topic."""
        marks = _as_read(marks)
        at_ms = occurred_at_ms(marks, self.now_ms)
        record = IncomingRecord(
            topic, 0, next(self._offsets), at_ms, key, value, marks, sent_at_ms=self.now_ms
        )
        self.sent.append(record)
        self.queues[_AGGREGATE_OF[topic], key].append(record)

    def route(self, records: list[OutgoingRecord]) -> None:
        """These records are committed: each goes to whoever reads its topic."""
        self.log += records
        for record in records:
            self._hand_over(record)
            for listener in self.listeners:
                listener(record)

    def _hand_over(self, record: OutgoingRecord) -> None:
        key = record.key or b""
        if record.topic in _AGGREGATE_OF:
            self.enqueue(record.topic, key, record.value, record.headers)
        elif record.topic == TOPICS.history(SAGA):
            marks = _as_read(record.headers)
            self.heard[key].append(IncomingRecord(record.topic, 0, 0, 0, key, record.value, marks))
        elif record.topic == TOPICS.history("payment"):
            paid = decode_event(record.value or b"")
            task = react_to_payment(key.decode(), paid)
            if task is not None:
                self.asked[key].append(PaymentTask(task, paid.id, _as_read(record.headers)))

    def gateways_answer(self, key: bytes) -> tuple[Followup, ...] | None:
        """What follows from the answer to a payment's next task, which stays; None: there was none."""
        queue = self.asked[key]
        task = queue[0].task
        try:
            if isinstance(task, Charge):
                return after_charge(task, _at_once(self.gateway.charge(task)))
            return after_refund(task, _at_once(self.gateway.refund(task.key)))
        except GatewayUnavailable:
            if len(queue) > 1:
                queue.popleft()  # a refund waits behind it, and bars the key
            return None

    def send_followup(self, key: bytes, followup: Followup, work: PaymentTask) -> None:
        """The outbox tells the payment what the gateway has answered."""
        passed = [mark for mark in work.marks if mark[0] != headers.CAUSATION_ID]
        if not followup.answers:
            passed = [mark for mark in passed if mark[0] != headers.ANSWER_TO]
        marks = [*passed, (headers.CAUSATION_ID, work.event_id.encode())]
        self.enqueue(TOPICS.commands("payment"), key, encode(followup.command), marks)


def _key_of(aggregate_id: str) -> bytes:
    """The same key for the same id, so that the same commands give the same records. Nothing is kept here
    that would have to be forgotten.
    """
    return blake2b(aggregate_id.encode(), digest_size=KEY_BYTES).digest()


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs it. Raises GatewayUnavailable for an answer that takes time (`tok_slow_0`): ask again."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    coroutine.close()
    raise GatewayUnavailable("no answer yet")


def _as_read(marks: Headers) -> Headers:
    return [(name, v.encode() if isinstance(v, str) else v) for name, v in marks]
