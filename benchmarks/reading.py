"""One stream of 20 events out of a history of a million records: by the index, and by reading its partition.

Run alone with ``python -m benchmarks.reading`` (servers of its own), or as part of ``make bench``.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from eventstore import EventStore
from eventstore.events import BEGINNING
from eventstore.following import Subscription
from eventstore.indexer import Indexer
from runtime import kafka, topic_admin
from runtime.embedded import EmbeddedServers
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.partitioner import partition_for
from schemas.records import EventRecord, encode

EVENTS = 1_000_000
EVENTS_OF_A_STREAM = 20
READS = 200
SEED = 7
PLAIN = "stream"


def figures(settings: Settings, events: int) -> dict[str, float]:
    """Fills a history, indexes it, reads streams out of it, and reads one partition as a whole."""
    fill(settings, events)
    streams = events // EVENTS_OF_A_STREAM
    with closing(Indexer(settings)) as indexer:
        history = topics_of(settings).history(PLAIN)
        places = [(history, partition) for partition in range(settings.partitions)]
        before = memory(settings)
        began = time.perf_counter()
        indexer.catch_up(places)
        indexing = time.perf_counter() - began
    grown = memory(settings) - before
    took = reading_one(settings, streams)
    scan = scanning(settings)
    return {
        "records": float(events),
        "indexed, events/s": events / indexing,
        "index, bytes an event": grown / events,
        "one stream of 20, ms, p50": statistics.median(took) * 1000,
        "one stream of 20, ms, p99": statistics.quantiles(took, n=100)[98] * 1000,
        "its partition as a whole, ms": scan * 1000,
        "ratio": scan / statistics.median(took),
    }


def fill(settings: Settings, events: int) -> None:
    """Streams of 20 events each, every stream spread over the whole of its partition."""
    topic = topics_of(settings).history(PLAIN)
    producer = Producer(kafka.producer(settings) | {"linger.ms": 20})
    streams = events // EVENTS_OF_A_STREAM
    data = msgspec.Raw(encode({"type": "Measured", "data": {"text": "x" * 80}}))
    for version in range(1, EVENTS_OF_A_STREAM + 1):
        for stream in range(streams):
            key = f"s-{stream}".encode()
            command = f"c-{stream}-{version}"
            value = EventRecord(
                type="Appended",
                id=f"{command}:0",
                version=version,
                occurred_at_ms=version,
                data=data,
            )
            marks: headers.Marks = [
                (headers.CAUSATION_ID, command.encode()),
                (headers.CORRELATION_ID, key),
            ]
            partition = partition_for(key, settings.partitions)
            while True:
                try:
                    producer.produce(topic, encode(value), key, partition, headers=marks)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    producer.flush()


def reading_one(settings: Settings, streams: int) -> list[float]:
    """Seconds that each of some streams took, on a store that is warm."""
    chosen = random.Random(SEED)
    took = []
    with EventStore(settings) as store:
        for partition in range(settings.partitions):  # its connections
            stream = next(s for s in range(streams) if _partition(s, settings) == partition)
            store.get_stream(f"{PLAIN}/s-{stream}")
        for _ in range(READS):
            stream = chosen.randrange(streams)
            began = time.perf_counter()
            found = store.get_stream(f"{PLAIN}/s-{stream}")
            took.append(time.perf_counter() - began)
            assert [event.version for event in found] == list(range(1, EVENTS_OF_A_STREAM + 1))
    return took


def scanning(settings: Settings) -> float:
    """Seconds for reading all partitions, as a store without an index would, divided by their number."""
    began = time.perf_counter()
    for _ in Subscription(settings, (PLAIN,), BEGINNING, None).to_the_end():
        pass
    return (time.perf_counter() - began) / settings.partitions


def memory(settings: Settings) -> int:
    """Bytes that Redis uses for its data."""
    with closing(connect(settings)) as redis:
        return int(redis.info("memory")["used_memory"])


def _partition(stream: int, settings: Settings) -> int:
    return partition_for(f"s-{stream}".encode(), settings.partitions)


def main() -> None:
    """Measures on servers of its own and prints JSON."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        os.environ |= {
            "KAFKA_BOOTSTRAP_SERVERS": servers.address.bootstrap_servers,
            "REDIS_URL": servers.address.redis_url,
            "ORDERFLOW_HOME": folder,
        }
        settings = Settings()
        topic_admin.apply(settings)
        json.dump(figures(settings, EVENTS), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
