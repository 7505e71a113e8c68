"""The comparator of the processor: consume, decode JSON, write an event and an outcome, commit. No more.

No validation, no state, no history, no idempotency, no headers: what Kafka and the client library cost at
least. It is a process, as the processor is, and takes what has come for one transaction, as the processor
does; an outcome goes to the sender's partition of the replies topic, too, where the command asks for it.

``python -m benchmarks.bare_loop AGGREGATE EVENTS OUTCOMES``, the last two names of topics.
"""

import signal
import sys
import threading

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from runtime import kafka
from runtime.records import Headers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.headers import REPLY_PARTITION
from schemas.ids import reply_key
from schemas.records import Outcome, OutcomeStatus

OUTPUTS = ("bare.events", "bare.outcomes")
"""Its topics, below the prefix."""

IDLE_S = 0.1
_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


def group_of(settings: Settings) -> str:
    """Its consumer group."""
    return f"{settings.topic_prefix}.bare"


class BareLoop:
    """One loop over all partitions of an aggregate's commands."""

    def __init__(self, settings: Settings, aggregate: str, events: str, outcomes: str) -> None:
        self._aggregate, self._events, self._outcomes = aggregate, events, outcomes
        topics = topics_of(settings)
        self._commands, self._replies = topics.commands(aggregate), topics.replies
        self._batch = settings.batch_size
        self._consumer = Consumer(kafka.group_consumer(settings, group_of(settings)))
        self._producer = Producer(kafka.transactional_producer(settings, group_of(settings)))
        self._producer.init_transactions(60)
        parts = range(settings.partitions)
        self._consumer.assign([TopicPartition(self._commands, p, OFFSET_BEGINNING) for p in parts])

    def run(self, stopping: threading.Event) -> None:
        """Until told to stop. Raises KafkaException."""
        while not stopping.is_set():
            messages = kafka.what_came(self._consumer, self._batch, IDLE_S)
            if messages:
                self._handle(messages)
        self._consumer.close()

    def _handle(self, messages: list[Message]) -> None:
        self._producer.begin_transaction()
        ends: dict[int, int] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            partition = message.partition() or 0
            self._write(message, partition)
            ends[partition] = (message.offset() or 0) + 1
        offsets = [TopicPartition(self._commands, p, end) for p, end in ends.items()]
        group = self._consumer.consumer_group_metadata()
        self._producer.send_offsets_to_transaction(offsets, group)
        self._producer.commit_transaction()

    def _write(self, message: Message, partition: int) -> None:
        command = _decode(message.value() or b"")
        key, command_id = message.key() or b"", command["command_id"]
        event = _encode({"type": command["type"], "id": command_id, "data": command["data"]})
        outcome = _encode(
            Outcome(
                command_id=command_id,
                type=command["type"],
                aggregate=self._aggregate,
                aggregate_id=key.decode(),
                status=OutcomeStatus.ACCEPTED,
                version=1,
                decided_at_ms=message.timestamp()[1],
            )
        )
        self._producer.produce(self._events, event, key, partition)
        self._producer.produce(self._outcomes, outcome, key, partition)
        marks: Headers = message.headers() or []  # type: ignore[assignment]
        for name, value in marks:
            if name == REPLY_PARTITION and value:
                reply = reply_key(self._aggregate, key.decode(), command_id)
                self._producer.produce(self._replies, outcome, reply, int(value))


def main() -> None:
    """Runs until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    aggregate, events, outcomes = sys.argv[1:]
    BareLoop(Settings(), aggregate, events, outcomes).run(stopping)


if __name__ == "__main__":
    main()
