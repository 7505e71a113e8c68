"""Events a second into Redis: the projector (Faust), a bare consumer with the same scripts, stock Faust."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks import processing, stock_faust, workload
from benchmarks.bench import Bench, Found, Place
from benchmarks.curves import Curve, follow, rate
from benchmarks.roles import running
from readmodels import generations, positions
from readmodels.keys import FIRST_GENERATION, Keys
from readmodels.records import Change, read
from readmodels.steps import drive
from readmodels.views import ORDERS, View
from runtime import kafka
from runtime.records import IncomingRecord, incoming
from runtime.redis import Line, connect, redis_url
from runtime.settings import Settings
from runtime.topic_admin import topics_of

BATCH: Final = 1_000
POLL_S: Final = 0.02
FAUST_EVENTS: Final = 60_000
"""Its rate is that of the first events; it takes too long for more."""

OURS: Final = "projector"
BARE: Final = "bare consumer"
FAUST: Final = "stock Faust"
UNIT: Final = "events/s"


def figures(bench: Bench) -> Found:
    """All on the same events, one after the other, each into keys of its own."""
    rates: dict[str, float] = {}
    with bench.place("projecting") as place:
        workload.fill_orders(place.settings, workload.commands(bench.commands))
        processing.decided(place, bench.commands)
        for name in bench.in_turn(list(_RATES)):
            rates[name] = _RATES[name](place, bench.commands)
    found = {f"{name}, {UNIT}": rates[name] for name in _RATES}
    return Found(found | {f"{OURS} / {name}": rates[OURS] / rates[name] for name in (BARE, FAUST)})


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
    rate_found = done / (time.perf_counter() - started)
    consumer.close()
    generations.remove(line, keys)
    line.close()
    return rate_found


def progress(place: Place, view: View, redis: Any) -> tuple[Callable[[], int], int]:
    """Asks for the sum of a view's positions; and what that is when all that stands on the topics is in."""
    topic = topics_of(place.settings).events(view.aggregate)
    ends = _ends(place.settings, topic)
    key = Keys(place.settings.topic_prefix, view.name, FIRST_GENERATION).positions

    def reached() -> int:
        found = redis.hgetall(key)
        return sum(min(int(found.get(f"{topic}:{p}", 0)), end) for p, end in ends.items())

    return reached, sum(ends.values())


def projected(place: Place, view: View = ORDERS) -> Curve:
    """Lets a projector of its own process bring what stands on the topics into Redis: its positions, and its
    cost, Redis included.
    """
    with (
        closing(connect(place.settings)) as redis,
        running("readmodels", place.environment) as process,
    ):
        reached, goal = progress(place, view, redis)

        def in_redis() -> float:
            spent = redis.info("cpu")
            return float(spent["used_cpu_user"]) + float(spent["used_cpu_sys"])

        return follow(reached, goal, process, in_redis)


def _ours(place: Place, _: int) -> float:
    curve = projected(place)
    return rate(curve, curve[-1].done // 4)


def _faust(place: Place, events: int) -> float:
    goal = min(events, FAUST_EVENTS)
    key = stock_faust.counter_key(place.settings)
    with (
        closing(connect(place.settings)) as redis,
        running("benchmarks.stock_faust", place.environment) as process,
    ):
        curve = follow(lambda: int(redis.get(key) or 0), goal, process)
    return rate(curve, goal // 4)


_RATES: Final[dict[str, Callable[[Place, int], float]]] = {
    OURS: _ours,
    BARE: lambda place, _: bare_rate(place.settings),
    FAUST: _faust,
}


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
