"""Commands a second of one processor, next to the bare loop's and Kafka Streams'."""

from collections.abc import Callable
from typing import Final

from benchmarks import bare_loop, kafka_streams, workload
from benchmarks.bench import Bench, Found, Place
from benchmarks.curves import Curve, cost, follow, rate
from benchmarks.roles import running
from processors.command_processor import WORK
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of

OURS: Final = "processor"
BARE: Final = "bare loop"
STREAMS: Final = "Kafka Streams"
UNIT: Final = "commands/s"
ANSWER_S: Final = 60.0


def committed(settings: Settings, group: str, aggregate: str = "order") -> Callable[[], int]:
    """Asks for the sum of a group's offsets, which are what it has decided: the topics began at 0."""
    asker = kafka.group_asker(settings, group)
    topic = topics_of(settings).commands(aggregate)
    places = [(topic, partition) for partition in range(settings.partitions)]

    def ask() -> int:
        found = kafka.group_offsets(asker, places, ANSWER_S)
        return sum(max(0, offset) for offset in found.values())

    ask()  # finds the coordinator, which on a new broker takes a second
    return ask


def decided(place: Place, count: int, aggregate: str = "order") -> Curve:
    """Lets a processor of its own process decide what stands on the topics."""
    ask = committed(place.settings, WORK.group_id(place.settings), aggregate)
    with running("processors", place.environment) as process:
        return follow(ask, count, process)


def figures(bench: Bench) -> Found:
    """All on the same commands, one after the other, each into topics of its own.

    The clock runs for the second half, from committed offsets to committed offsets: starting does not count,
    nor does the time in which a JVM compiles itself.
    """
    why_not = kafka_streams.missing()
    names = [OURS, BARE] if why_not else [OURS, BARE, STREAMS]
    curves: dict[str, Curve] = {}
    count = 2 * bench.commands
    with bench.place("processing") as place:
        workload.fill_orders(place.settings, workload.commands(count))
        for name in bench.in_turn(names):
            curves[name] = _CURVES[name](place, count)
    rates = {name: rate(curves[name], count // 2) for name in names}
    found = {f"{name}, {UNIT}": rates[name] for name in names}
    found |= {f"{name}, CPU µs a command": cost(curves[name], count // 2) for name in names}
    found |= {f"{OURS} / {name}": rates[OURS] / rates[name] for name in names[1:]}
    return Found(found, notes=(why_not,) if why_not else ())


def _bare(place: Place, count: int) -> Curve:
    outputs = place.make_topics(bare_loop.OUTPUTS)
    ask = committed(place.settings, bare_loop.group_of(place.settings))
    with running("benchmarks.bare_loop", place.environment, "order", *outputs) as process:
        return follow(ask, count, process)


def _streams(place: Place, count: int) -> Curve:
    ask = committed(place.settings, kafka_streams.group_of(place))
    with kafka_streams.running(place) as process:
        return follow(ask, count, process)


_CURVES: Final[dict[str, Callable[[Place, int], Curve]]] = {
    OURS: decided,
    BARE: _bare,
    STREAMS: _streams,
}
