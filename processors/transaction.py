"""One Kafka transaction after another, and what to do when one fails. Knows nothing of commands.

The client library knows three classes of failure, and so does this file:

* retriable: the same call again, within the transaction's time;
* the transaction is lost (``txn_requires_abort``): abort it;
* everything else: the producer is lost. So it is after a commit or abort that failed or timed out,
  since librdkafka has no KIP-890 part 2 yet: a delayed EndTxn could end a *later* transaction of
  this producer.

After the last two a new producer begins again from the committed offsets. Under the same id, it fences the
old one with all that is under way.

A call that ignores its time-out (librdkafka 2.16 does so in ``send_offsets_to_transaction`` when the group's
coordinator dies) is left behind with its thread and its producer, and a new producer begins likewise.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from runtime import kafka, watchdog
from runtime.records import OutgoingRecord
from runtime.settings import Settings
from runtime.worker import Worker

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = kafka.TRANSACTION_TIMEOUT_MS / 1000
INIT_TIMEOUT_S: Final = 60.0
"""A new producer waits until the coordinator has ended what its predecessor left open."""

RETRY_PAUSE_S: Final = 0.05
HANG_MARGIN_S: Final = 3.0
"""A call that has not returned so long after its time-out hangs."""

LOOK_EVERY_S: Final = 1.0

NextOffsets = dict[tuple[str, int], int]
"""(topic, partition) -> offset after the last record that a transaction wrote there."""


class TransactionFailed(RuntimeError):
    """Nothing of the transaction stands, or nobody can know: go back to the committed offsets."""


class Calls:
    """The library call that a thread is in, so that another thread can see it hang."""

    def __init__(self) -> None:
        self._under_way: tuple[str, float] | None = None

    def make(self, name: str, call: Callable[[], object], timeout_s: float) -> None:
        """Repeat a call for as long as the library says that it may be. Raises KafkaException.

        ``timeout_s``: of the call itself, and of all its repetitions.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._under_way = name, time.monotonic() + timeout_s + HANG_MARGIN_S
            try:
                call()
                return
            except KafkaException as error:
                # The library's own word, and not the list of runtime.kafka: a commit that timed out is only
                # to be repeated where it says so.
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
                watchdog.beat()
                time.sleep(RETRY_PAUSE_S)
            finally:
                self._under_way = None

    def hanging(self) -> str | None:
        """Return the name of the call that hangs, or None."""
        under_way = self._under_way
        return under_way[0] if under_way and time.monotonic() > under_way[1] else None


class PendingCommit:
    """A commit on the writer's thread."""

    def __init__(self, writer: "TransactionalWriter", ends: Future[NextOffsets], calls: Calls):
        self._writer = writer
        self._ends = ends
        self._calls = calls

    def done(self) -> bool:
        """True if ``result`` returns or raises at once, or has to leave a hanging call behind."""
        return self._ends.done() or self._calls.hanging() is not None

    def result(self) -> NextOffsets:
        """Wait for the commit; return where the records ended. Raises TransactionFailed."""
        while not wait([self._ends], LOOK_EVERY_S).done:
            watchdog.beat()
            if (name := self._calls.hanging()) is not None:
                self._writer.leave_behind(name)
                raise TransactionFailed(f"transaction failed: {name} hangs")
        return self._ends.result()


class TransactionalWriter:
    """Writes batches under one transactional id: ``begin``, ``commit``, and again."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        """Fences any other holder of the id. Raises KafkaException when no coordinator answers."""
        self._config = kafka.transactional_producer(settings, transactional_id)
        self._committer, self._flusher = Worker("commit"), Worker("flush")
        self._producer = self._new_producer(Calls())
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
        producer = self._producer
        with self._recovering(producer, Calls()):
            producer.begin_transaction()
            produce = producer.produce
            for number, record in enumerate(records):
                # By position, which costs half as much as by name: topic, value, key, partition, callback,
                # the same under its other name, timestamp (0: now), headers.
                to = record.topic, record.value, record.key, record.partition
                call_back = report.get(number)
                try:
                    produce(*to, call_back, None, 0, record.headers)
                except BufferError:  # the library's queue is full
                    _wait_for_room(producer, *to, call_back, None, 0, record.headers)

    def commit(self, offsets: list[TopicPartition], group: bytes) -> NextOffsets:
        """Commit what was begun and the consumer's offsets, all or none; return where the records ended.

        ``group``: see ``kafka.membership``; by it the broker refuses a processor whose partitions have gone
        to another. Raises TransactionFailed: then read the committed offsets again.
        """
        return self.start_commit(offsets, group).result()

    def start_commit(self, offsets: list[TopicPartition], group: bytes) -> PendingCommit:
        """As ``commit``, on a thread of its own: it mostly waits.

        Raises ValueError without offsets: librdkafka would not ask the group's coordinator, and nothing
        would fence the transaction.
        """
        if not offsets:
            raise ValueError("a transaction without offsets is fenced by no group")
        calls = Calls()
        ends = self._committer.submit(self._commit, self._producer, offsets, group, calls)
        return PendingCommit(self, ends, calls)

    def leave_behind(self, name: str) -> None:
        """Go on with a new producer and new threads while a call of the old producer hangs. The old one is
        fenced, whatever becomes of the call. Raises KafkaException.
        """
        logger.error("%s ignores its time-out: its producer is left behind", name)
        self._close_threads()
        self._committer, self._flusher = Worker("commit"), Worker("flush")
        self._producer = self._new_producer(Calls())

    def close(self) -> None:
        """Leave nothing open."""
        self._producer.flush(CALL_TIMEOUT_S)
        self._close_threads()

    def _close_threads(self) -> None:
        self._committer.close()
        self._flusher.close()

    def _commit(
        self, producer: Producer, offsets: list[TopicPartition], group: bytes, calls: Calls
    ) -> NextOffsets:
        ends = self._ends
        with self._recovering(producer, calls):
            # While somebody flushes, nothing lingers. The records wait until the coordinator has heard of
            # their partitions, which takes as long as the offsets do: both go at the same time. If the
            # offsets fail, it is not waited for: what ends the transaction ends the flushing, too.
            flushed = self._flusher.submit(producer.flush, CALL_TIMEOUT_S)
            calls.make(
                "send_offsets_to_transaction",
                lambda: producer.send_offsets_to_transaction(offsets, group, CALL_TIMEOUT_S),
                CALL_TIMEOUT_S,
            )
            if flushed.result():
                raise KafkaException(
                    KafkaError(KafkaError._TIMED_OUT, "records were not delivered in time")
                )
            calls.make(
                "commit_transaction",
                lambda: producer.commit_transaction(CALL_TIMEOUT_S),
                CALL_TIMEOUT_S,
            )
        return ends

    @contextmanager
    def _recovering(self, producer: Producer, calls: Calls) -> Iterator[None]:
        """After a failure a new producer is fit for the next transaction. Raises TransactionFailed."""
        try:
            yield
        except KafkaException as error:
            self._recover(producer, error.args[0], calls)
            raise TransactionFailed(f"transaction failed: {error.args[0].str()}") from error
        except SystemError as error:
            # So the client says that it is fenced in the middle of a delivery report: it raises within
            # ``flush``, and calls back all the same.
            self._replace_producer(producer, calls)
            raise TransactionFailed(f"transaction failed: {error.__cause__ or error}") from error
        except BaseException:
            self._replace_producer(producer, calls)
            raise

    def _recover(self, producer: Producer, error: KafkaError, calls: Calls) -> None:
        """Ends what is under way, and goes on with a new producer. The old one would do after an abort, if
        librdkafka (2.16) did not drop requests that wait to be sent without taking back their sequence
        numbers: the next records of these partitions would be refused, and half a second lost.
        """
        logger.warning("new producer after: %s", error.str())
        if error.txn_requires_abort():
            try:  # otherwise the new one would wait for half a second until the old one's transaction is over
                calls.make(
                    "abort_transaction",
                    lambda: producer.abort_transaction(CALL_TIMEOUT_S),
                    CALL_TIMEOUT_S,
                )
            except KafkaException as failure:
                logger.warning("abort failed: %s", failure.args[0].str())
        self._replace_producer(producer, calls)

    def _replace_producer(self, producer: Producer, calls: Calls) -> None:
        if self._producer is not producer:
            return  # it was left behind, and this is the call that did not return in time
        producer.purge()
        new = self._new_producer(calls)
        if self._producer is producer:
            self._producer = new

    def _new_producer(self, calls: Calls) -> Producer:
        producer = Producer(self._config | {"error_cb": _tell})
        kafka.know_cluster(producer, INIT_TIMEOUT_S)
        calls.make(
            "init_transactions", lambda: producer.init_transactions(INIT_TIMEOUT_S), INIT_TIMEOUT_S
        )
        return producer


def _tell(error: KafkaError) -> None:
    """What the client reports outside of a call. A fatal error also fails the transaction under way,
    and that is handled there: see ``TransactionalWriter._recovering``.
    """
    logger.info("producer: %s", error.str())


def _wait_for_room(producer: Producer, *arguments: Any) -> None:
    """Let the library send, until it takes the record."""
    while True:
        producer.poll(RETRY_PAUSE_S)
        watchdog.beat()
        try:
            return producer.produce(*arguments)
        except BufferError:
            continue
