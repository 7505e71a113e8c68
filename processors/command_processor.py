"""The command processor: the loop that consumes commands, decides them and commits, and its
partitions.

    consume a batch -> decide -> events + history + outcomes + replies + offsets in one transaction
    -> store

Runs as any number of processes in one consumer group. A partition is consumed only while its state
is known up to the high watermark; it is paused while that is restored.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from commands import AGGREGATES, by_name
from processors.decider import Decider
from processors.partitions import OwnedPartitions
from processors.records import IncomingRecord, OutgoingRecord, incoming
from processors.slot import Slot
from processors.state_store import PartitionState
from processors.transaction import NextOffsets, TransactionalWriter, TransactionFailed
from runtime import kafka, topic_admin
from runtime.settings import Settings

logger = logging.getLogger(__name__)

ROLE: Final = "processor"
IDLE_POLL_S: Final = 0.1
"""How long an idle processor waits for a first command before it looks whether it shall stop."""

TELL_EVERY_S: Final = 10.0


def group_id(settings: Settings) -> str:
    """Consumer group of the command processors."""
    return f"{settings.topic_prefix}.{ROLE}"


class CommandProcessor:
    """One process' part of the group. ``run`` until ``stop``; not thread-safe but for ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = topic_admin.topics_of(settings)
        self._aggregate_of = {self._topics.commands(a.name): a.name for a in AGGREGATES}
        self._stopping = threading.Event()
        self._batch_s = settings.batch_ms / 1000
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
            slot = stack.enter_context(Slot(self._settings.home, ROLE))
            self._writer = TransactionalWriter(
                self._settings, f"{self._settings.topic_prefix}.{slot.name}"
            )
            stack.callback(self._writer.close)
            self._consumer = Consumer(
                kafka.group_consumer(self._settings, group_id(self._settings))
            )
            self._owned = OwnedPartitions(
                self._settings, self._consumer, slot.directory, self._new_decider
            )
            stack.callback(self._owned.close)
            stack.callback(self._consumer.close)
            self._consumer.subscribe(
                list(self._aggregate_of),
                on_assign=self._owned.on_assign,
                on_revoke=self._owned.on_revoke,
                on_lost=self._owned.on_lost,
            )
            logger.info("processor started as %s", slot.name)
            self._loop()
            logger.info("processor stopped after %d commands", self.decided)

    def _new_decider(self, topic: str, partition: int, store: PartitionState) -> Decider:
        return Decider(by_name[self._aggregate_of[topic]], self._topics, partition, store)

    def _loop(self) -> None:
        told_at, told = time.monotonic(), 0
        while not self._stopping.is_set():
            self._owned.restore_step()
            batch = self._consume()
            if batch:
                self._handle(batch)
            now = time.monotonic()
            if now - told_at > TELL_EVERY_S and self.decided > told:
                rate = (self.decided - told) / (now - told_at)
                logger.info("%d commands decided, %.0f/s", self.decided, rate)
                told_at, told = now, self.decided

    def _consume(self) -> list[IncomingRecord]:
        """A batch: waits for a first command, then a little for others to share its transaction.

        A rebalance may come between the two: what was read of a partition that is gone is its new
        owner's, and one that went and came back is read again from the committed offset.
        """
        first = self._consumer.consume(1, 0 if self._owned.restoring else IDLE_POLL_S)
        if not first:
            return []
        more = self._consumer.consume(self._settings.batch_size - 1, self._batch_s)
        records = [incoming(message) for message in (*first, *more) if self._is_record(message)]
        return [r for r in records if self._owned.is_ready(r.topic, r.partition)]

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._owned.offsets_lost(f"{message.topic()}-{message.partition()}", error.str())
        if error.fatal():
            raise KafkaException(error)
        logger.warning("consumer: %s", error.str())  # the library goes on trying by itself
        return False

    def _handle(self, batch: list[IncomingRecord]) -> None:
        # Group metadata must belong to the generation in which the batch was read.
        group = self._consumer.consumer_group_metadata()
        try:
            ends = self._writer.write(self._decide_all(batch), next_offsets(batch), group)
        except TransactionFailed as failure:
            logger.warning("%s: deciding %d commands again", failure, len(batch))
            self._owned.rewind()
            return
        self._owned.committed(ends)
        self.decided += len(batch)

    def _decide_all(self, batch: Iterable[IncomingRecord]) -> Iterator[OutgoingRecord]:
        for record in batch:
            yield from self._owned.decider(record.topic, record.partition).decide(record)


def next_offsets(batch: Iterable[IncomingRecord]) -> list[TopicPartition]:
    """For each partition of a batch, the offset after its last record."""
    ends: NextOffsets = {}
    for record in batch:
        ends[record.topic, record.partition] = record.offset + 1
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
