"""The comparator of the processor: consume, decode JSON, write an event and an outcome, commit. No more.

No validation, no state, no history, no idempotency: what Kafka and the client library cost at least.
"""

import time

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of


def run(settings: Settings, count: int, batch: int) -> float:
    """Handles ``count`` commands of the order topic from its beginning; returns commands a second."""
    topics = topics_of(settings)
    group = f"{settings.topic_prefix}.bare"
    consumer = Consumer(kafka.group_consumer(settings, group))
    producer = Producer(kafka.transactional_producer(settings, group))
    producer.init_transactions(60)
    consumer.assign(
        [
            TopicPartition(topics.commands("order"), partition, OFFSET_BEGINNING)
            for partition in range(settings.partitions)
        ]
    )
    # Its own topics, so that the processor's are as empty as they were.
    event_topic = outcome_topic = topics.dead_letters
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    done, started = 0, 0.0
    while done < count:
        messages = consumer.consume(batch, 0.2)
        if not messages:
            continue
        started = started or time.perf_counter()
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for message in messages:
            command = decode(message.value() or b"")
            partition = message.partition() or 0
            event = encode(
                {"type": command["type"], "id": command["command_id"], "data": command["data"]}
            )
            outcome = encode({"command_id": command["command_id"], "status": "accepted"})
            producer.produce(event_topic, event, message.key(), 0)
            producer.produce(outcome_topic, outcome, message.key(), 0)
            ends[partition] = (message.offset() or 0) + 1
        offsets = [TopicPartition(topics.commands("order"), p, end) for p, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
        done += len(messages)
    rate = done / (time.perf_counter() - started)
    consumer.close()
    return rate
