"""Kafka Streams as a comparator of the processor: its jars, and who compiles `streams/Orders.java`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bench import Place
from benchmarks.roles import Process, program
from runtime.embedded import EmbeddedServerError, jars, kafka
from runtime.embedded.java import find_java
from runtime.topic_admin import topics_of

SOURCE: Final = Path(__file__).with_name("streams") / "Orders.java"
LOCK: Final = SOURCE.with_name("streams.lock")
HEAP: Final = "512m"
CHECK_S: Final = 30.0


def missing() -> str | None:
    """Why it cannot be run here; None: it can be."""
    java = str(find_java())
    done = subprocess.run(
        [java, "--list-modules"], capture_output=True, text=True, timeout=CHECK_S, check=False
    )
    if "jdk.compiler@" not in done.stdout:
        return f"Kafka Streams was left out: {java} is a runtime without a compiler; it needs a JDK"
    try:
        _class_path()
    except EmbeddedServerError as error:
        return f"Kafka Streams was left out: {error}"
    return None


def group_of(place: Place) -> str:
    """Its application id, which is its consumer group."""
    return f"{place.settings.topic_prefix}.streams"


def _class_path() -> str:
    """Raises EmbeddedServerError when a jar is neither there nor to be had."""
    # kafka.lock has the clients and what both need.
    paths = [*jars.ensure_jars(), *jars.ensure_jars(jars=jars.parse_lock(LOCK.read_text()))]
    return ":".join(map(str, paths))


@contextmanager
def running(place: Place) -> Iterator[Process]:
    """It decides the order commands of a place, into topics of its own, until the end of the block."""
    events, outcomes = place.make_topics(["streams.events", "streams.outcomes"])
    command = [
        str(find_java()),
        f"-Xms{HEAP}",
        f"-Xmx{HEAP}",
        "-cp",
        _class_path(),
        f"-Dlog4j2.configurationFile={kafka.LOGGING}",
        str(SOURCE),
        place.settings.kafka_bootstrap_servers or "",
        group_of(place),
        topics_of(place.settings).commands("order"),
        events,
        outcomes,
        str(place.settings.home / "streams"),
    ]
    with program(command, place.environment) as process:
        yield process
