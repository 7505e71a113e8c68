"""Events a second into Redis: the projector (Faust), and a bare consumer that calls the same scripts."""

import time
from contextlib import closing
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks.roles import running
from readmodels import generations, positions
from readmodels.keys import Keys
from readmodels.records import Change, read
from readmodels.steps import drive
from readmodels.views import ORDERS
from runtime import kafka
from runtime.records import IncomingRecord, incoming
from runtime.redis import Line, connect, redis_url
from runtime.settings import Settings
from runtime.topic_admin import topics_of

BATCH = 1_000
POLL_S = 0.02


def pair(settings: Settings, environment: dict[str, str]) -> dict[str, float]:
    """The bare consumer and the projector on the same events."""
    bare = bare_rate(settings)
    ours = projector_rate(settings, environment)
    return {"bare consumer, events/s": bare, "projector, events/s": ours, "ratio": ours / bare}


def bare_rate(settings: Settings) -> float:
    """Reads all order events from the beginning into a view under another prefix, which is not there before,
    so that everything has to be written, nor afterwards.
    """
    topic = topics_of(settings).events("order")
    consumer = Consumer(kafka.reader(settings))
    parts = range(settings.partitions)
    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
    line, keys = Line(redis_url(settings)), Keys(f"{settings.topic_prefix}-bare", ORDERS.name, 1)
    done, started, at_end = 0, 0.0, 0
    while at_end < len(parts):
        records: list[IncomingRecord] = []
        for message in consumer.consume(BATCH, POLL_S):
            error = message.error()
            if error is None:
                records.append(incoming(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end += 1
        if not records:
            continue
        started = started or time.perf_counter()
        changes = [change for record in records if (change := _change(record)) is not None]
        drive(line, positions.apply_batch([(ORDERS, keys, changes)], {}))
        done += len(records)
    rate = done / (time.perf_counter() - started)
    consumer.close()
    generations.remove(line, keys)
    line.close()
    return rate


def projector_rate(settings: Settings, environment: dict[str, str]) -> float:
    """Starts a projector on what stands on the topics; returns events a second.

    The clock runs from its first position in Redis to its last, so that starting it does not count.
    """
    topic = topics_of(settings).events("order")
    ends = _ends(settings, topic)
    key = Keys(settings.topic_prefix, ORDERS.name, 1).positions
    with closing(connect(settings)) as redis, running("readmodels", environment):
        started, first = 0.0, 0
        while True:
            found = redis.hgetall(key)
            at = {part: int(found.get(f"{topic}:{part}", 0)) for part in ends}
            reached = sum(at.values())
            if reached and not started:
                started, first = time.perf_counter(), reached
            if all(at[part] >= end for part, end in ends.items()):
                return (reached - first) / (time.perf_counter() - started)
            time.sleep(POLL_S)


def _change(record: IncomingRecord) -> Change[object] | None:
    headers: Any = record.headers
    return read(record.key, record.value, headers, ORDERS.states, ORDERS.project)


def _ends(settings: Settings, topic: str) -> dict[int, int]:
    consumer = Consumer(kafka.reader(settings))
    try:
        return {
            part: kafka.watermarks(consumer, TopicPartition(topic, part), 10)[1]
            for part in range(settings.partitions)
        }
    finally:
        consumer.close()
