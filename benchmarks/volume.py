"""Bytes on Kafka for each command, on the broker's disk and before compression, to those of its JSON."""

from collections import Counter
from pathlib import Path
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks import processing, workload
from benchmarks.bench import Bench, Figures, Found
from runtime import kafka
from runtime.records import incoming
from runtime.settings import Settings

KINDS: Final = ("commands", "events", "history", "outcomes")


def figures(bench: Bench) -> Found:
    """Of order commands that nobody waits for, decided by one processor in full transactions."""
    with bench.place("volume") as place:
        count = workload.fill_orders(place.settings, workload.commands(bench.commands))
        processing.decided(place, count)
        _, plain = written(place.settings)
        stored = on_disk(bench.folder, place.settings)
    json = sum(len(value) for _, value in workload.commands(count)) / count
    found: Figures = {"a command's JSON, bytes": json}
    for name, sizes in (("written", plain), ("on disk", stored)):
        for kind in KINDS:
            size = sum(size for topic, size in sizes.items() if topic.endswith(f".{kind}"))
            found[f"{kind}, bytes {name} a command"] = size / count
        total = sum(sizes.values()) / count
        found[f"all topics, bytes {name} a command"] = total
        found[f"bytes {name} / a command's JSON"] = total / json
    return Found(found)


def written(settings: Settings) -> tuple[int, Counter[str]]:
    """Records on all topics of the prefix; and topic → bytes of keys, values and headers, not compressed."""
    consumer = Consumer(kafka.reader(settings))
    try:
        known = consumer.list_topics(timeout=10).topics
        prefix = f"{settings.topic_prefix}."
        places = {
            (name, number)
            for name, topic in known.items()
            if name.startswith(prefix)
            for number in topic.partitions
        }
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        records, sizes = 0, Counter[str]()
        while places:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                topic = message.topic() or ""
                if error is None:
                    records += 1
                    sizes[topic] += len(message) + len(message.key() or b"")
                    sizes[topic] += sum(
                        len(n) + len(v or b"") for n, v in incoming(message).headers
                    )
                elif error.code() == KafkaError._PARTITION_EOF:
                    places.discard((topic, message.partition() or 0))
        return records, sizes
    finally:
        consumer.close()


def on_disk(folder: Path, settings: Settings) -> Counter[str]:
    """Topic → bytes of its segments on the embedded broker's disk: compressed, with transactions' markers."""
    sizes = Counter[str]()
    for segment in (folder / "kafka" / "data").glob(f"{settings.topic_prefix}.*/*.log"):
        sizes[segment.parent.name.rpartition("-")[0]] += segment.stat().st_size
    return sizes
