"""Brings the local copies of newly assigned partitions up to date with their topics.

Reads, read_committed, from each copy's checkpoint up to the *high watermark* found at the start.
Not up to the last stable offset: an open transaction of a dead processor would hide what was
committed behind it. The restore waits until that transaction is ended (by its timeout, at the
latest) and only then is done.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from processors.state_store import PartitionCopy
from runtime import kafka
from runtime.settings import Settings

logger = logging.getLogger(__name__)

BATCH: Final = 5_000
POLL_S: Final = 0.05
STALLED_AFTER_S: Final = 6 * kafka.TRANSACTION_TIMEOUT_MS / 1000
PROGRESS_EVERY_S: Final = 2.0
TIMEOUT_S: Final = 30.0

TopicAndPartition = tuple[str, int]
_Changes = dict[TopicAndPartition, dict[bytes, bytes | None]]


class RestoreStalled(RuntimeError):
    """State could not be read up to the high watermark, and nothing moved for a minute."""


class Restorer:
    """Restores any number of copies at once; ``step`` until it is done, and meanwhile do other things."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(kafka.admin(settings))
        self._consumer = kafka.new_reader(settings)
        self._copies: dict[TopicAndPartition, PartitionCopy] = {}
        self._targets: dict[TopicAndPartition, int] = {}
        self._writer = ThreadPoolExecutor(1, "restore")
        self._writing: tuple[Future[None], dict[TopicAndPartition, int]] | None = None
        """What is being written while more is read, and up to which offsets it goes."""
        self._records = 0
        self._moved_at = self._told_at = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether any copy is not up to date yet."""
        return bool(self._targets)

    def is_restoring(self, topic: str, partition: int) -> bool:
        """Whether this copy is not up to date yet. What was read past its target, while that was written, is
        part of it: nobody else may write before that has been.
        """
        at = topic, partition
        return at in self._targets or (self._writing is not None and at in self._writing[1])

    def add(self, copies: dict[TopicAndPartition, PartitionCopy]) -> None:
        """Starts to restore these. Raises KafkaException when the broker does not answer."""
        if not copies:
            return
        # A rebalance may come in because the broker was away.
        low = kafka.first_offsets(self._admin, copies, TIMEOUT_S)
        high = kafka.end_offsets(self._admin, copies, TIMEOUT_S)
        starts = []
        for at, copy in copies.items():
            if (copy.next_offset or 0) > high[at]:
                logger.warning("%s-%d is shorter than its local copy: starting anew", *at)
                copy.reset()
            copy.catch_up_with(low[at])
            start = max(copy.next_offset or 0, low[at])
            self._copies[at] = copy
            if start < high[at]:
                self._targets[at] = high[at]
                starts.append(TopicPartition(*at, start or OFFSET_BEGINNING))
        if starts:
            self._consumer.incremental_assign(starts)
            self._moved_at = time.monotonic()

    def drop(self, partitions: list[TopicAndPartition]) -> None:
        """Forgets copies whose partitions were taken away."""
        self._settle()
        for at in partitions:
            self._copies.pop(at, None)
            self._finish(at)

    def step(self) -> None:
        """Reads a little, and meanwhile what was read before is written. Raises RestoreStalled,
        KafkaException.
        """
        changes, reached = self._read()
        self._settle()
        if reached:
            parts = [(self._copies[at], changes[at], offset) for at, offset in reached.items()]
            self._writing = self._writer.submit(_write, parts), reached
            if all(reached.get(at, 0) >= target for at, target in self._targets.items()):
                self._settle()  # nothing more is to be read
        self._watch(bool(reached))

    def close(self) -> None:
        """Stops reading."""
        self._writer.shutdown()
        self._consumer.close()

    def _read(self) -> tuple[_Changes, dict[TopicAndPartition, int]]:
        """What has come of the copies' topics, and up to where that is."""
        changes: _Changes = defaultdict(dict)
        last: dict[TopicAndPartition, Message] = {}
        ends: dict[TopicAndPartition, int] = {}
        at: Any
        for message in kafka.what_came(self._consumer, BATCH, POLL_S):
            error = message.error()
            if error is None:  # a record has a place, a key, and a value or none
                at = message.topic(), message.partition()
                changes[at][message.key() or b""] = message.value()
                last[at] = message
                self._records += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                at, offset = _place(message)
                ends[at] = offset
            elif not kafka.is_transient(error):
                raise KafkaException(error)
            # Else the library goes on trying by itself; that there is no progress is noticed by `_watch`.
        reached = {at: cast(int, message.offset()) + 1 for at, message in last.items()}
        for at, end in ends.items():
            reached[at] = max(end, reached.get(at, 0))
        return changes, {at: offset for at, offset in reached.items() if at in self._copies}

    def _settle(self) -> None:
        """Waits until what was read before is written."""
        if self._writing is None:
            return
        (written, reached), self._writing = self._writing, None
        written.result()
        for at, offset in reached.items():
            if offset >= self._targets.get(at, 0):
                self._finish(at)

    def _finish(self, at: TopicAndPartition) -> None:
        if self._targets.pop(at, None) is not None:
            self._consumer.incremental_unassign([TopicPartition(*at)])

    def _watch(self, moved: bool) -> None:
        now = time.monotonic()
        if moved:
            self._moved_at = now
        elif self.busy and now - self._moved_at > STALLED_AFTER_S:
            waiting = ", ".join(f"{topic}-{partition}" for topic, partition in self._targets)
            raise RestoreStalled(
                f"nothing could be read for {STALLED_AFTER_S:g} s, but {waiting} did not reach the high "
                "watermark: a transaction hangs open (`orderflow topics abort-hanging` says whose it is and "
                "ends it), or a broker is gone"
            )
        if self.busy and now - self._told_at > PROGRESS_EVERY_S:
            self._told_at = now
            logger.info("restoring: %d records, %d copies left", self._records, len(self._targets))


def _write(parts: Sequence[tuple[PartitionCopy, Mapping[bytes, bytes | None], int]]) -> None:
    for copy, changes, offset in parts:
        copy.restore(changes, offset)


def _place(message: Message) -> tuple[TopicAndPartition, int]:
    """Where an end-of-partition event stands; any other error has no place."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise KafkaException(message.error())
    return (topic, partition), offset
