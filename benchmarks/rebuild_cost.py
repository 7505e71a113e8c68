"""What a rebuild costs: it grows with the number of aggregates, not with the number of their events.

``python -m benchmarks.rebuild_cost [--aggregates N]`` starts its own servers and writes the same orders with
1, 10 and 100 events each, once as they stand and once really compacted by the broker. It prints how many
records a rebuild reads and how long it fills, and the ratios to one event each. Read the ratios.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from readmodels import rebuilding
from readmodels.filling import Progress
from readmodels.views import ORDERS
from runtime import kafka, topic_admin
from runtime.embedded import EmbeddedServers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for
from tests.support.compaction import compact
from tests.support.events import Record, order

AGGREGATES = 1_000
EVENTS = (1, 10, 100)
Row = dict[str, float]
FIGURES = {"records": 0, "seconds": 2, "records compacted": 0, "seconds compacted": 2}
"""Name of a figure, and its decimals."""


def main() -> None:
    """Measures and prints; the JSON goes to standard output, everything else to standard error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild_cost", description=__doc__)
    parser.add_argument("--aggregates", type=int, default=AGGREGATES)
    count = parser.parse_args().aggregates
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        os.environ.update(
            {
                "KAFKA_BOOTSTRAP_SERVERS": servers.address.bootstrap_servers,
                "REDIS_URL": servers.address.redis_url,
                "ORDERFLOW_HOME": folder,
                "ORDERFLOW_LOG_LEVEL": "WARNING",
            }
        )
        _measure("warm-up", count, EVENTS[0])
        rows = [_measure(f"cost-{events}", count, events) for events in EVENTS]
    _show(rows, Console(stderr=True))
    json.dump(rows, sys.stdout, indent=2)


def _measure(prefix: str, aggregates: int, events: int) -> Row:
    settings = Settings.model_validate({**os.environ, "ORDERFLOW_TOPIC_PREFIX": prefix})
    topic_admin.apply(settings)
    _write(settings, _histories(aggregates, events))
    records, seconds = _rebuild(settings)
    compact(settings, topics_of(settings).events("order"))
    compacted_records, compacted_seconds = _rebuild(settings)
    return {
        "events each": events,
        "records": records,
        "seconds": seconds,
        "records compacted": compacted_records,
        "seconds compacted": compacted_seconds,
    }


def _histories(aggregates: int, events: int) -> Iterator[Record]:
    for version in range(1, events + 1):
        for number in range(aggregates):
            yield order(f"o-{number}", version, user=f"u-{number % 100}", total=version)


def _write(settings: Settings, records: Iterable[Record]) -> None:
    producer = Producer(kafka.producer(settings) | {"linger.ms": 20})
    topic = topics_of(settings).events("order")
    for record in records:
        partition = partition_for(record.key_bytes, settings.partitions)
        while True:
            try:
                producer.produce(topic, record.value, record.key_bytes, partition)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def _rebuild(settings: Settings) -> tuple[int, float]:
    """Records read, and seconds from the first look at the topic to the last record in Redis."""
    told: list[tuple[Progress, float]] = []
    plan = rebuilding.Plan(dry_run=True)
    report = rebuilding.rebuild(
        settings, [ORDERS.name], lambda one: told.append((one, time.perf_counter())), plan
    )
    last = told[-1][0]
    return report.records, report.records / last.rate if last.rate else 0.0


def _show(rows: list[Row], console: Console) -> None:
    """Each figure, and how many times that of the first row it is."""
    first = rows[0]
    table = Table("events each", *FIGURES)
    for row in rows:
        cells = (
            f"{row[name]:,.{digits}f} (x {row[name] / max(first[name], 1e-9):.1f})"
            for name, digits in FIGURES.items()
        )
        table.add_row(f"{row['events each']:.0f}", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
