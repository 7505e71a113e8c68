"""One Kafka transaction after another, and what to do when one fails. Knows nothing of commands.

The client library knows three classes of failure, and so does this file:

* retriable: the same call again, within the transaction's time;
* the transaction is lost (``txn_requires_abort``): abort it;
* everything else: the producer is lost. So it is after a commit or abort that failed or timed out,
  since librdkafka has no KIP-890 part 2 yet: a delayed EndTxn could end a *later* transaction of
  this producer.

After the last two a new producer begins again from the committed offsets. Under the same id, it fences the
old one with all that is under way.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from runtime import kafka
from runtime.records import OutgoingRecord
from runtime.settings import Settings

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = kafka.TRANSACTION_TIMEOUT_MS / 1000
INIT_TIMEOUT_S: Final = 60.0
"""A new producer waits until the coordinator has ended what its predecessor left open."""

RETRY_PAUSE_S: Final = 0.05

NextOffsets = dict[tuple[str, int], int]
"""(topic, partition) -> offset after the last record that a transaction wrote there."""


class TransactionFailed(RuntimeError):
    """Nothing of the transaction stands, or nobody can know: go back to the committed offsets."""


class TransactionalWriter:
    """Writes batches under one transactional id: ``begin``, ``commit``, and again."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        """Fences any other holder of the id. Raises KafkaException when no coordinator answers."""
        self._config = kafka.transactional_producer(settings, transactional_id)
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._producer = self._new_producer()
        self._ends: NextOffsets = {}

    def begin(self, records: Collection[OutgoingRecord]) -> None:
        """Begins a transaction and sends its records on their way. Raises TransactionFailed."""
        self._ends = ends = {}

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if error is None and topic is not None and partition is not None:
                ends[topic, partition] = (offset or 0) + 1

        # Only the last record of each partition reports back: a call into Python for each would cost
        # more than encoding them, and the library itself fails the transaction when any record is lost.
        last = {(record.topic, record.partition): number for number, record in enumerate(records)}
        report = dict.fromkeys(last.values(), on_delivery)
        with self._recovering():
            self._producer.begin_transaction()
            produce = self._producer.produce
            for number, record in enumerate(records):
                # By position, which costs half as much as by name: topic, value, key, partition, callback,
                # the same under its other name, timestamp (0: now), headers.
                to = record.topic, record.value, record.key, record.partition
                call_back = report.get(number)
                try:
                    produce(*to, call_back, None, 0, record.headers)
                except BufferError:  # the library's queue is full
                    self._wait_for_room(produce, *to, call_back, None, 0, record.headers)

    def commit(self, offsets: list[TopicPartition], group: Any) -> NextOffsets:
        """Commits what was begun and the consumer's offsets, all or none; returns where the records
        ended. It mostly waits, so it may be left to another thread.

        ``group`` is the consumer's group metadata, by which the broker refuses a processor whose
        partitions have gone to another. Raises TransactionFailed: then read the committed offsets
        again.
        """
        producer = self._producer
        with self._recovering():
            # While somebody flushes, nothing lingers. The records wait until the coordinator has heard of
            # their partitions, which takes as long as the offsets do: both go at the same time. If the
            # offsets fail, it is not waited for: what ends the transaction ends the flushing, too.
            flushed = self._flusher.submit(producer.flush, CALL_TIMEOUT_S)
            _retrying(lambda: producer.send_offsets_to_transaction(offsets, group, CALL_TIMEOUT_S))
            if flushed.result():
                raise KafkaException(
                    KafkaError(KafkaError._TIMED_OUT, "records were not delivered in time")
                )
            _retrying(lambda: producer.commit_transaction(CALL_TIMEOUT_S))
        return self._ends

    def close(self) -> None:
        """Leaves nothing open."""
        self._producer.flush(CALL_TIMEOUT_S)
        self._flusher.shutdown()

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        """After a failure the producer is fit for the next transaction. Raises TransactionFailed."""
        try:
            yield
        except KafkaException as error:
            self._recover(error.args[0])
            raise TransactionFailed(f"transaction failed: {error.args[0].str()}") from error
        except SystemError as error:
            # So the client says that it is fenced in the middle of a delivery report: it raises within
            # ``flush``, and calls back all the same.
            self._replace_producer()
            raise TransactionFailed(f"transaction failed: {error.__cause__ or error}") from error
        except BaseException:
            self._replace_producer()
            raise

    def _wait_for_room(self, produce: Callable[..., None], *arguments: Any) -> None:
        """Lets the library send, until it takes the record."""
        while True:
            self._producer.poll(RETRY_PAUSE_S)
            try:
                return produce(*arguments)
            except BufferError:
                continue

    def _recover(self, error: KafkaError) -> None:
        """Ends what is under way, and goes on with a new producer. The old one would do after an abort, if
        librdkafka (2.16) did not drop requests that wait to be sent without taking back their sequence
        numbers: the next records of these partitions would be refused, and half a second lost.
        """
        logger.warning("new producer after: %s", error.str())
        if error.txn_requires_abort():
            try:  # otherwise the new one would wait for half a second until the old one's transaction is over
                _retrying(lambda: self._producer.abort_transaction(CALL_TIMEOUT_S))
            except KafkaException as failure:
                logger.warning("abort failed: %s", failure.args[0].str())
        self._replace_producer()

    def _replace_producer(self) -> None:
        self._producer.purge()
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        producer = Producer(self._config | {"error_cb": _tell})
        kafka.know_cluster(producer, INIT_TIMEOUT_S)
        _retrying(lambda: producer.init_transactions(INIT_TIMEOUT_S), INIT_TIMEOUT_S)
        return producer


def _tell(error: KafkaError) -> None:
    """What the client reports outside of a call. A fatal error also fails the transaction under way,
    and that is handled there: see ``TransactionalWriter._recovering``.
    """
    logger.info("producer: %s", error.str())


def _retrying(call: Callable[[], object], timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Repeats a call for as long as the library says that it may be. Raises KafkaException."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            call()
            return
        except KafkaException as error:
            # The library's own word, and not the list of runtime.kafka: a commit that timed out is only
            # to be repeated where it says so.
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_PAUSE_S)
