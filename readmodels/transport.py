"""Faust's aiokafka transport, changed in four places and nowhere else.

- It reads committed records only. (Stock, it does so only with Faust's own exactly-once.)
- What the broker sent for a partition is handed on as one message, a `Batch`, because Faust's cost is
  one of messages. What follows what is known from the offsets it covers, not from counting messages:
  transaction markers and compaction leave holes that no record fills.
- Reading starts where `Positions` says, which is Redis. What is committed to Kafka is for lag tools.
- What waits for Redis is bounded in bytes, after decompression (`fetched`, MAX_WAITING_BYTES).

A `Batch` carries the epoch of its partition, which every seek raises: batches that were on their way
when it happened are told from those that follow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Protocol, cast

import aiokafka
from aiokafka.consumer.fetcher import FetchError
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import ack_lock
from mode.utils.futures import notify

from readmodels import fetched as taken
from readmodels.positions import TopicPart
from runtime.kafka import HEARTBEAT_MS, SESSION_TIMEOUT_MS

FETCH_MAX_BYTES: Final = 1024 * 1024
"""Of one partition in one answer; a single larger record still comes. Bounds what waits in memory."""

FETCH_MAX_WAIT_MS: Final = 20
"""The broker is asked one thing at a time: while it waits for news of the idle partitions, nobody gets
more of the busy ones."""
REBALANCE_TIMEOUT_MS: Final = 30_000
NEVER_MS: Final = 7 * 24 * 3_600_000
COMMIT_WITHIN_S: Final = 3.0
IDLE_S: Final = 0.1
FULL_S: Final = 0.01

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Records that were handed out and are not in Redis yet, of all partitions. Beyond it a partition gets a
batch only if it has none on its way, so each of them goes on."""

taken.install()


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition; they are all that is visible of offsets ``start`` up to ``after``."""

    part: TopicPart
    epoch: int
    start: int
    after: int
    records: Sequence[Any]  # aiokafka's ConsumerRecord


class Positions(Protocol):
    """Who knows from where to read."""

    async def resume(self, parts: Iterable[TopicPart]) -> Mapping[TopicPart, int]:
        """Where to read on; what is not in the answer is not known yet, and not read."""

    def applied(self) -> Mapping[TopicPart, int]:
        """Up to where the views are, as far as this process knows."""


class TopicMadeAnew(RuntimeError):
    """A partition ends before the position of its views: the topic was deleted or cut. See `preflight`."""


@dataclass(slots=True)
class Mark:
    """How far the records of a partition have been handed out since the last seek. ``waiting``: of each
    batch that may not be in Redis yet, the offset after it and its bytes.
    """

    epoch: int
    handed: int
    waiting: deque[tuple[int, int]] = field(default_factory=deque)

    def waiting_bytes(self, applied: int) -> int:
        """How many bytes are on their way, if all before ``applied`` is in."""
        waiting = self.waiting
        while waiting and waiting[0][0] <= applied:
            waiting.popleft()
        return sum(size for _, size in waiting)


class BatchThread(stock.AIOKafkaConsumerThread):
    """The thread that talks to the brokers. Marks are only changed on its loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.marks: dict[TopicPart, Mark] = {}
        self._epochs = count(1)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        """Faust's own constructor reads uncommitted; every option is given here, on purpose."""
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            **transport.connection,
            client_id=conf.broker_client_id,
            group_id=conf.id,
            isolation_level="read_committed",
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # until the seek; a partition without a mark is not read
            max_poll_records=conf.broker_max_poll_records,
            max_partition_fetch_bytes=FETCH_MAX_BYTES,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            # While Redis is away nothing is fetched, and nobody else could do better: keep the
            # partitions. A dead process is noticed by its missing heartbeats.
            max_poll_interval_ms=NEVER_MS,
            check_crcs=True,
        )

    async def place(self, positions: Mapping[TopicPart, int]) -> None:
        """Read on from these offsets; what is on its way from before belongs to an older epoch."""
        await self.call_thread(self._place, dict(positions))

    async def _place(self, positions: dict[TopicPart, int]) -> None:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        for part, offset in positions.items():
            if part in assigned:
                consumer.seek(TP(*part), offset)
                self.marks[part] = Mark(next(self._epochs), offset)

    async def forget(self, parts: Iterable[TopicPart] | None = None) -> None:
        """Read nothing of these partitions (None: of any) until they are placed again."""
        await self.call_thread(self._forget, None if parts is None else set(parts))

    async def _forget(self, parts: set[TopicPart] | None) -> None:
        for part in list(self.marks) if parts is None else parts:
            self.marks.pop(part, None)

    async def skip_holes(self, part: TopicPart, applied: int) -> int | None:
        """Where the reader stands, if there is nothing to apply between ``applied`` and there.

        From then on the next batch begins there. None while records are on their way.
        """
        answer: int | None = await self.call_thread(self._skip_holes, part, applied)
        return answer

    async def _skip_holes(self, part: TopicPart, applied: int) -> int | None:
        mark = self.marks.get(part)
        position = self._position(part)
        if mark is None or position is None or mark.handed != applied or position <= applied:
            return None
        mark.handed = position
        return position

    def _position(self, part: TopicPart) -> int | None:
        """The offset that is read next, known without waiting."""
        subscription = self._ensure_consumer()._subscription.subscription
        if subscription is None or part not in subscription.assignment.tps:
            return None
        state = subscription.assignment.state_value(TP(*part))
        return cast(int, state.position) if state.has_valid_position else None

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP] | None,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        if not self.consumer.flow_active:
            return {}
        placed = {tp for tp in active_partitions or () if tp in self.marks}
        wanted = self._with_room(placed)
        if not wanted:  # aiokafka would take an empty set for all
            await asyncio.sleep(FULL_S if placed else IDLE_S)
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        batches: dict[TP, Batch] = {}
        with fetcher._subscriptions.fetch_context():
            # Something of each partition, so that several are in work at the same time: one after the other,
            # as aiokafka gives them, Redis would wait for the records of one to be decoded, and the next
            # ones for Redis. Errors first: what is raised takes nothing with it that was given before.
            held = fetcher._records
            ready = [tp for tp in wanted if tp in held]
            for tp in sorted(ready, key=lambda tp: not isinstance(held[tp], FetchError)):
                fetched = await fetcher.fetched_records({tp}, max_records=max_records)
                batches |= self._batches(fetched)
            if not batches:
                fetched = await fetcher.fetched_records(
                    wanted, timeout=timeout, max_records=max_records
                )
                batches = self._batches(fetched)
        return batches

    def _with_room(self, partitions: set[TP]) -> set[TP]:
        """Those of which more may be handed out now."""
        consumer = cast(BatchConsumer, self.consumer)
        applied = consumer.positions.applied()
        waiting = {
            part: mark.waiting_bytes(applied.get(part, -1)) for part, mark in self.marks.items()
        }
        if sum(waiting.values()) < MAX_WAITING_BYTES:
            return partitions
        return {tp for tp in partitions if not waiting[tp.topic, tp.partition]}

    def _batches(self, fetched: Mapping[TP, taken.Taken]) -> dict[TP, Batch]:
        """To be called before anything else is awaited: so records and position belong together."""
        return {
            tp: batch
            for tp, records in fetched.items()
            if (batch := self._batch((tp.topic, tp.partition), records)) is not None
        }

    def _batch(self, part: TopicPart, records: taken.Taken) -> Batch | None:
        mark, after = self.marks.get(part), self._position(part)
        if mark is None or after is None:
            return None
        if records[0].offset < mark.handed:
            raise TopicMadeAnew(
                f"{part[0]}:{part[1]} goes on at {records[0].offset}, before {mark.handed}, where the"
                f" views are. {TopicMadeAnew.__doc__}"
            )
        batch = Batch(part, mark.epoch, mark.handed, after, records)
        mark.handed = after
        mark.waiting.append((after, records.size))
        return batch

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Stock, a failure ends the worker; but nobody reads from these offsets."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        wanted = {
            aiokafka.TopicPartition(*tp): offset for tp, offset in offsets.items() if tp in assigned
        }
        if not wanted:
            return False
        try:
            await consumer.commit(wanted)
        except KafkaError as error:
            self.log.debug("offsets for lag tools not committed: %r", error)
            return False
        return True


class _Anywhere(dict[TP, "int | None"]):
    """Stock, records before the last one read are dropped; here the epoch tells old from new."""

    def __getitem__(self, _: TP) -> None:
        return None


class BatchConsumer(stock.Consumer):
    """Faust's view of the consumer: one message a batch, no bookkeeping of single offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Anywhere()

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> BatchThread:
        """The consumer's thread, for seeking and for looking."""
        return cast(BatchThread, self._thread)

    @property
    def positions(self) -> Positions:
        """Who knows from where to read."""
        return cast(BatchTransport, self.transport).positions

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """What Faust does after every rebalance; committed is what Redis has."""
        await self.thread.forget()
        assigned = [(tp.topic, tp.partition) for tp in self.assignment()]
        positions = await self.positions.resume(assigned)
        await self.thread.place(positions)
        return {TP(*part): offset for part, offset in positions.items()}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """One message a partition. Dropping the rest is harmless: see `watch`."""
        fetched, _ = await self._wait_next_records(timeout)
        if self.should_stop or not fetched:
            return
        generation = self.app.consumer_generation_id
        for tp, batch in fetched.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            yield tp, self._message(batch, generation)

    def _message(self, batch: Any, generation: int) -> ConsumerMessage:
        part: TopicPart = batch.part
        return ConsumerMessage(
            *part,
            offset=batch.start,
            timestamp=batch.records[0].timestamp / 1000.0,
            timestamp_type=batch.records[0].timestamp_type,
            headers=[],
            key=None,
            value=batch,
            checksum=None,
            tp=TP(*part),
            generation_id=generation,
        )

    def ack(self, message: Message) -> bool:
        """Only so that Faust sees what is still in the agents' hands."""
        with ack_lock:
            if message.acked:
                return False
            message.acked = True
            self._unacked_messages.discard(message)
            notify(self._waiting_for_ack)
            return True

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell Kafka's lag tools where the views are."""
        try:
            assigned = self.assignment()
        except ConsumerNotStarted:  # stopped before it was up
            return False
        offsets = {
            TP(*part): offset
            for part, offset in self.positions.applied().items()
            if part in assigned and self._committed_offset.get(TP(*part)) != offset
        }
        if not offsets:
            return False
        try:  # a thread that is being stopped may never answer
            done = await asyncio.wait_for(self.thread.commit(offsets), COMMIT_WITHIN_S)
        except TimeoutError:
            return False
        if not done:
            return False
        self._committed_offset.update(offsets)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Stock, it compares single messages; `watch` looks after progress here."""


class BatchTransport(stock.Transport):
    """The transport that uses them. ``connection``: aiokafka options that reach the brokers."""

    Consumer = BatchConsumer

    def __init__(self, *args: Any, connection: Mapping[str, Any], positions: Positions) -> None:
        super().__init__(*args)
        self.connection = connection
        self.positions = positions
