"""The reactor: services that react to each other's events, each event once.

Reads the sagas' history, asks ``sagas.choreography.react``, and sends the commands that follow in one
transaction with its offsets. It has no state: what it does depends on the event alone. Read from the
beginning again it changes nothing: a saga that has begun or ended already takes no second command.
"""

import logging
import threading
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from processors.isolation import Isolation
from processors.loop import IDLE_POLL_S
from processors.outbox import command_record, data_of
from processors.slot import Slot
from processors.transaction import TransactionalWriter, TransactionFailed
from runtime import kafka, topic_admin, watchdog
from runtime.records import IncomingRecord, OutgoingRecord, dead_letter, incoming
from runtime.settings import Settings
from runtime.topic_watch import TopicWatch
from sagas.choreography import EVENTS, Reaction, react
from schemas import headers
from schemas.decoding import DecodeError
from schemas.ids import derived_id, is_id
from schemas.letters import Failure
from schemas.records import EventRecord, decode_event
from schemas.rejections import Code
from schemas.topics import SAGA, Topics
from schemas.upcasting import Reader, UnsupportedVersion

logger = logging.getLogger(__name__)

ROLE: Final = "reactor"
CALL_TIMEOUT_S: Final = 10.0

_readers: Final[dict[str, Reader[Any]]] = {event.__name__: Reader(event) for event in EVENTS}


def reactions(record: IncomingRecord, topics: Topics) -> list[OutgoingRecord]:
    """The commands that follow from one record of the sagas' history.

    Raises msgspec.DecodeError for what is no event of a saga; UnsupportedVersion is one of these.
    """
    event = decode_event(record.value or b"")
    reader = _readers.get(event.type)
    if reader is None:
        return []
    saga_id = (record.key or b"").decode()
    if not is_id(saga_id):
        raise DecodeError("the record key is no id of a saga")
    correlation = dict(record.headers).get(headers.CORRELATION_ID)
    correlation_id = (
        correlation.decode(errors="replace") if isinstance(correlation, bytes) else saga_id
    )
    found = react(saga_id, reader.read(event.data, event.schema_version), correlation_id)
    return [_command(each, event, number, record, topics) for number, each in enumerate(found)]


def _command(
    reaction: Reaction, event: EventRecord, number: int, record: IncomingRecord, topics: Topics
) -> OutgoingRecord:
    command, saga_id = reaction.command, (record.key or b"").decode()
    return command_record(
        topics,
        SAGA,
        reaction.saga_id,
        kind=type(command),
        # With the saga's id: that of an event is unique within its saga only.
        command_id=derived_id("reaction", saga_id, event.id, str(number)),
        data=data_of(command),
        marks=headers.following(event.id, record.headers),
    )


def failure(cause: Exception) -> Failure:
    """What the dead letter says of a record from which ``reactions`` raised this."""
    match cause:
        case UnsupportedVersion():
            code = Code.UNSUPPORTED_SCHEMA_VERSION
        case msgspec.DecodeError() | UnicodeDecodeError():
            code = Code.MALFORMED
        case _:
            message = f"the reaction failed: {type(cause).__name__}: {cause}"
            return Failure(Code.INTERNAL_ERROR, message, ROLE, cause)
    return Failure(code, f"not an event of a saga: {cause}", ROLE, cause)


class Reactor:
    """One process' part of the group. ``run`` until ``stop``; not thread-safe but for ``stop``."""

    role: Final = ROLE

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = topic_admin.topics_of(settings)
        self._stopping = threading.Event()
        self._isolation = Isolation(settings.batch_size)
        self._aside: dict[tuple[int, int], Exception] = {}
        """Records that are put aside when they are read again, and why."""

    def stop(self) -> None:
        """Lets ``run`` end after the batch in hand; may be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Until stopped. Raises TopicsUnfit, NoFreeSlot, KafkaException."""
        topic_admin.require(self._settings)
        group = f"{self._settings.topic_prefix}.{ROLE}"
        consumer = Consumer(kafka.repeating_consumer(self._settings, group))
        try:
            watched = [self._topics.history(SAGA), self._topics.commands(SAGA)]
            watch = TopicWatch.of(self._settings, watched)
            with Slot(self._settings.home, ROLE) as slot:
                name = f"{self._settings.topic_prefix}.{slot.name}"
                writer = TransactionalWriter(self._settings, name)
                consumer.subscribe([self._topics.history(SAGA)])
                logger.info("reactor started as %s", slot.name)
                while not self._stopping.is_set():
                    watchdog.beat()
                    watch.look()
                    self._react(consumer, writer)
                writer.close()
        finally:
            consumer.close()
        logger.info("reactor stopped")

    def _react(self, consumer: Consumer, writer: TransactionalWriter) -> None:
        """One batch. A rebalance can only come in while it is read."""
        messages = kafka.what_came(consumer, self._isolation.room, IDLE_POLL_S)
        read = [incoming(message) for message in messages if kafka.is_record(message)]
        if not read:
            return
        ends = {(record.topic, record.partition): record.offset + 1 for record in read}
        offsets = [TopicPartition(*place, offset) for place, offset in ends.items()]
        group = kafka.membership(consumer)
        if group is None:
            logger.warning("the group has taken this member out: reacting again")
            self._go_back(consumer)
            return
        try:
            writer.begin([out for record in read for out in self._reactions(record)])
            writer.commit(offsets, group)
            self._isolation.succeeded()
        except TransactionFailed as failure:
            self._again(consumer, read, failure, failure.__cause__)
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as refusal:  # the client cannot write a record
            self._again(consumer, read, refusal, refusal)

    def _again(
        self,
        consumer: Consumer,
        read: list[IncomingRecord],
        failure: Exception,
        cause: BaseException | None,
    ) -> None:
        """After a batch that failed: reads it again, in parts if it was refused for its content."""
        logger.warning("%s: reacting again", failure)
        if self._isolation.failed(len(read), cause):
            (record,) = read
            self._aside[record.partition, record.offset] = failure
        self._stopping.wait(self._isolation.pause_s())
        self._go_back(consumer)

    def _reactions(self, record: IncomingRecord) -> list[OutgoingRecord]:
        """As ``reactions``; what cannot be handled goes to the dead letters, and the others go on."""
        try:
            if (record.partition, record.offset) in self._aside:
                raise self._aside[record.partition, record.offset]
            return reactions(record, self._topics)
        except Exception as cause:  # a bug in a reaction, too, must stop nobody else's saga
            found = failure(cause)
            logger.error("event at %s: %s", record.offset, found.message, exc_info=cause)
            return [dead_letter(record, found, self._topics.dead_letters)]

    def _go_back(self, consumer: Consumer) -> None:
        """To the committed offsets; the beginning where there are none."""
        for at in kafka.until_answered(
            lambda: consumer.committed(consumer.assignment(), CALL_TIMEOUT_S), 3 * CALL_TIMEOUT_S
        ):
            if at.offset < 0:
                at.offset, _ = kafka.watermarks(consumer, at, CALL_TIMEOUT_S)
            consumer.seek(at)
