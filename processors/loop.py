"""The loop of every processor: it consumes commands, decides them and commits, and has its
partitions. What is decided, and how, is its ``Work``.

    consume -> decide -> events + history + outcomes + replies + offsets in one transaction -> store

While one transaction is being committed, the commands of the next are read and decided, so that the
broker is not waited for with nothing to do. They are decided on what is being committed: when that
fails, both are forgotten and read again.

Runs as any number of processes in one consumer group. A partition is consumed only while its state
is known up to the high watermark; it is paused while that is restored.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from commands.aggregate import Aggregate
from processors.decider import Decider
from processors.isolation import Isolation
from processors.partitions import OwnedPartitions, Place
from processors.slot import Slot
from processors.state_store import Marker, PartitionState
from processors.transaction import (
    NextOffsets,
    PendingCommit,
    TransactionalWriter,
    TransactionFailed,
)
from runtime import kafka, topic_admin, watchdog
from runtime.hanging import HangingWatch
from runtime.records import IncomingRecord, OutgoingRecord, incoming
from runtime.refusals import is_of_content
from runtime.settings import Settings
from runtime.topic_watch import TopicWatch
from schemas.topics import Topics

logger = logging.getLogger(__name__)

IDLE_POLL_S: Final = 0.1
"""How long an idle processor waits for a first command before it looks whether it shall stop."""

AT_ONCE: Final = 200
"""Most commands that are read and decided in one go. More at a time take a tenth longer each: what is made of
them leaves the core's cache before it is used.
"""

BATCH_BYTES: Final = 32 * 1024 * 1024
"""A batch of so much is full, however few its commands are: a transaction has to end in its time, and what is
to be sent is held in memory.
"""

LARGE_BYTES: Final = 4 * 1024 * 1024
"""Commands that were read in one go and have so much together are large."""

BUSY_POLL_S: Final = 0.001
"""How long it waits for more commands before it looks whether the commit under way has ended."""

TELL_EVERY_S: Final = 10.0

DUE_EVERY_S: Final = 0.05
"""How often it looks what time has made due."""

NOTE_EVERY_S: Final = 1.0
"""How often it notes on the disk how far commands are decided."""

IDLE_AFTER_S: Final = 0.1
"""A processor that has committed nothing for so long, and has nothing to commit, commits the ends of its
partitions.
"""
REFUSED_DUE_S: Final = 60.0
"""What is due and cannot be written is tried again after this time; commands go on meanwhile."""

NewDecider = Callable[[Aggregate, Topics, int, PartitionState], Decider]


@dataclass(frozen=True, slots=True)
class Work:
    """What a kind of processor does: for which aggregates, and who decides one of their partitions.

    ``role`` names its consumer group, its places on disk and its transactional ids. ``marker``: of a
    state, what its decider wants to find again (see ``PartitionCopy.marked``).
    """

    role: str
    aggregates: tuple[Aggregate, ...]
    new_decider: NewDecider
    marker: Marker | None = None

    def group_id(self, settings: Settings) -> str:
        """Its consumer group."""
        return f"{settings.topic_prefix}.{self.role}"


@dataclass(slots=True)
class Batch:
    """Commands that are decided and will be committed together; ``began_at`` on the monotonic clock,
    ``most``: commands that it may have, ``bytes``: of the values that came in and are to be written, ``due``:
    there are records in it that time has made due.
    """

    began_at: float
    most: int
    commands: int = 0
    bytes: int = 0
    due: bool = False
    records: list[OutgoingRecord] = field(default_factory=list)
    ends: NextOffsets = field(default_factory=dict)

    def add(self, decider: Decider, commands: Sequence[IncomingRecord]) -> None:
        """Decides more commands, of one partition and in their order."""
        records = decider.decide_all(commands)
        self.records += records
        self.bytes += sum([len(record.value) for record in records if record.value])
        self.bytes += sum([len(record.value) for record in commands if record.value])
        self.commands += len(commands)
        self.ends[commands[-1].topic, commands[-1].partition] = commands[-1].offset + 1

    @property
    def full(self) -> bool:
        """Whether nothing more belongs into it."""
        return self.commands >= self.most or self.bytes >= BATCH_BYTES


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction under way, what is in it, and up to where its commands go."""

    pending: PendingCommit
    batch: Batch
    offsets: NextOffsets


class Processor:
    """One process' part of the group. ``run`` until ``stop``; not thread-safe but for ``stop``."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self.role = work.role
        self._settings = settings
        self._work = work
        self._topics = topic_admin.topics_of(settings)
        self._aggregate_of = {self._topics.commands(a.name): a for a in work.aggregates}
        self._due_at = self._note_at = self._settled_at = 0.0
        self._at_once = AT_ONCE
        self._stopping = threading.Event()
        self._batch_s = settings.batch_ms / 1000
        self._batch: Batch | None = None
        self._commit: Commit | None = None
        self._isolation = Isolation(settings.batch_size)
        self._doubtful = False
        """Something decided will not be committed: nothing decided counts until ``_start_over``."""
        self.decided = 0
        """Commands decided and committed so far."""

    def stop(self) -> None:
        """Lets ``run`` end after the transaction under way; may be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Until stopped.

        Raises TopicsUnfit, OffsetsLost, RestoreStalled, KafkaException: all need a person.
        """
        topic_admin.require(self._settings)
        with ExitStack() as stack:
            slot = stack.enter_context(Slot(self._settings.home, self._work.role))
            self._writer = TransactionalWriter(
                self._settings, f"{self._settings.topic_prefix}.{slot.name}"
            )
            stack.callback(self._writer.close)
            self._watch = TopicWatch.of(self._settings, self._watched())
            places = [
                (topic, number)
                for topic in self._aggregate_of
                for number in range(self._settings.partitions)
            ]
            stack.enter_context(HangingWatch(self._settings, places))
            group = self._work.group_id(self._settings)
            self._consumer = Consumer(kafka.deciding_consumer(self._settings, group))
            self._owned = OwnedPartitions(
                self._settings,
                self._consumer,
                slot.directory,
                self._new_decider,
                before_release=self._finish,
                marker=self._work.marker,
            )
            stack.callback(self._owned.close)
            stack.callback(self._consumer.close)
            self._consumer.subscribe(
                list(self._aggregate_of),
                on_assign=self._owned.on_assign,
                on_revoke=self._owned.on_revoke,
                on_lost=self._owned.on_lost,
            )
            logger.info("%s started as %s", self._work.role, slot.name)
            try:
                self._loop()
                self._finish()
                self._take_ends(idle_for_s=0)
                self._finish()
            except BaseException:
                # It may have come in the middle of a decision: closing must not commit that.
                self._doubtful = True
                raise
        logger.info("%s stopped after %d commands", self._work.role, self.decided)

    def _watched(self) -> list[str]:
        """The topics that are read or written here and hold what is known of an aggregate."""
        topics = self._topics
        kinds = (topics.commands, topics.events, topics.history, topics.outcomes, topics.parked)
        return [topic(aggregate.name) for aggregate in self._work.aggregates for topic in kinds]

    def _new_decider(self, topic: str, partition: int, store: PartitionState) -> Decider:
        return self._work.new_decider(self._aggregate_of[topic], self._topics, partition, store)

    def _loop(self) -> None:
        told_at, told = time.monotonic(), 0
        while not self._stopping.is_set():
            watchdog.beat()
            self._watch.look()
            if self._doubtful:
                self._start_over()
            self._owned.restore_step()
            self._owned.expire_step()
            self._take()
            self._take_due()
            self._take_ends()
            self._note_positions()
            self._advance()
            now = time.monotonic()
            if now - told_at > TELL_EVERY_S and self.decided > told:
                rate = (self.decided - told) / (now - told_at)
                logger.info("%d commands decided, %.0f/s", self.decided, rate)
                told_at, told = now, self.decided

    # Reading and deciding.

    def _take(self) -> None:
        """Reads what has come and decides it, as part of the next transaction."""
        if self._batch is not None and (self._batch.full or self._is_alone(self._batch)):
            return  # and the one before it is still under way
        taken = self._batch.commands if self._batch else 0
        by_place = self._consume(min(self._at_once, self._isolation.room - taken))
        for place, commands in by_place.items():
            # A partition that went in the meantime is its new owner's; one that went and came back
            # is read again from the committed offset.
            if self._owned.is_ready(place):
                if self._batch is None:
                    self._batch = self._new_batch(time.monotonic())
                self._batch.add(self._owned.decider(place), commands)

    def _take_due(self) -> None:
        """What is due goes with the next transaction; it is not in anybody's way meanwhile."""
        now = time.monotonic()
        if now < self._due_at or self._doubtful:
            return
        if self._isolation.active and self._batch is not None:
            return  # whose content is refused is found out alone
        self._due_at = now + DUE_EVERY_S
        due = self._owned.due(time.time_ns() // 1_000_000)
        if due:
            self._batch = self._batch or self._new_batch(now)
            self._batch.records += due
            self._batch.due = True

    def _is_alone(self, batch: Batch) -> bool:
        """Whether a batch of what is due is not to be mixed with commands: a batch was refused."""
        return batch.due and self._isolation.active

    def _take_ends(self, idle_for_s: float = IDLE_AFTER_S) -> None:
        """Lets an idle processor commit the ends of its partitions, where only markers lie before them."""
        busy = self._batch is not None or self._commit is not None or self._doubtful
        if busy or time.monotonic() - self._settled_at < idle_for_s:
            return
        if self._owned.behind_end:
            self._batch = self._new_batch(time.monotonic())

    def _note_positions(self) -> None:
        now = time.monotonic()
        if now >= self._note_at:
            self._note_at = now + NOTE_EVERY_S
            self._owned.note()

    def _new_batch(self, now: float) -> Batch:
        return Batch(now, self._isolation.room)

    def _consume(self, room: int) -> dict[Place, list[IncomingRecord]]:
        """At most so many commands; waits for a first one, not for more. A rebalance may come in
        here.
        """
        if self._batch or self._commit:
            messages = self._consumer.consume(room, BUSY_POLL_S)
        else:
            wait_s = 0 if self._owned.restoring else IDLE_POLL_S
            messages = kafka.what_came(self._consumer, room, wait_s)
        by_place: dict[Place, list[IncomingRecord]] = {}
        size = 0
        for message in messages:
            if message.error() is not None:
                self._note(message)
                continue
            command = incoming(message)
            size += len(command.value or b"")
            by_place.setdefault((command.topic, command.partition), []).append(command)
        # Large commands come one by one, so that only one of them is decided at a time.
        self._at_once = AT_ONCE if size < LARGE_BYTES else 1
        return by_place

    def _note(self, message: Message) -> None:
        """What the consumer says instead of giving a record. Raises KafkaException."""
        error = message.error()
        place = message.topic() or "", message.partition() or 0
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            if self._owned.is_ready(place):
                self._owned.reached(place, message.offset() or 0)
        elif error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            logger.warning("%s-%d: %s", *place, error.str())
            self._owned.doubt(place)
            self._doubtful = True
        else:
            kafka.is_record(message)

    # Committing.

    def _advance(self) -> None:
        """Ends the commit under way if it is done, and begins the next one if it is time."""
        full = self._batch is not None and self._batch.full
        if self._commit is not None and (full or self._commit.pending.done()):
            self._settle()
        if self._batch is None or self._commit is not None or self._doubtful:
            return
        if full or time.monotonic() - self._batch.began_at >= self._batch_s:
            self._begin(self._batch)

    def _begin(self, batch: Batch) -> None:
        """Sends a batch and leaves its commit to the other thread; no other commit is under way."""
        self._batch = None
        batch.records += self._owned.seal()
        offsets = self._owned.offsets(batch.ends)
        # Read after the last rebalance that this batch knows of; a later one makes the broker refuse it.
        group = kafka.membership(self._consumer)
        if group is None or not offsets:
            self._doubt(TransactionFailed("the group has taken this member out"), batch)
            return
        try:
            self._writer.begin(batch.records)
        except TransactionFailed as failure:
            self._doubt(failure, batch)
            return
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as refusal:  # the client cannot write a record
            self._doubt(refusal, batch)
            return
        ends = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        self._commit = Commit(self._writer.start_commit(ends, group), batch, offsets)

    def _settle(self) -> None:
        """Waits for the commit under way; what it committed goes to the stores."""
        commit, self._commit = self._commit, None
        if commit is None:
            return
        self._settled_at = time.monotonic()
        try:
            ends = commit.pending.result()
        except TransactionFailed as failure:
            self._doubt(failure, commit.batch)
            return
        self._owned.committed(ends, commit.offsets)
        self._isolation.succeeded()
        self.decided += commit.batch.commands

    def _doubt(self, failure: Exception, batch: Batch) -> None:
        """A transaction failed, and with it what was decided on top of it."""
        cause = failure.__cause__ if isinstance(failure, TransactionFailed) else failure
        if self._isolation.failed(batch.commands, cause, more=batch.due):
            ((place, next_offset),) = batch.ends.items()
            if self._owned.is_ready(place):
                self._owned.decider(place).put_aside(next_offset - 1, failure)
        elif not batch.commands and is_of_content(cause):
            self._due_at = time.monotonic() + REFUSED_DUE_S
        logger.warning("%s: deciding %d commands again", failure, batch.commands)
        self._doubtful = True

    def _start_over(self) -> None:
        """Back to what is committed, offsets and state."""
        self._settle()
        self._batch = None
        self._stopping.wait(self._isolation.pause_s())
        self._owned.rewind()
        self._doubtful = False

    def _finish(self, lost: bool = False) -> None:
        """Commits what is decided, before partitions go; when they are gone already, drops it."""
        self._settle()
        if self._batch is None or self._doubtful:
            return
        if lost:
            self._doubtful = True
        else:
            self._begin(self._batch)
            self._settle()
