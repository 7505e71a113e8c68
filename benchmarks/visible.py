"""From sending a command until the view has it, and how much later that is than its outcome, in the same run.

A process of its own looks for some of the commands' rows in Redis, all that are due in one round trip, every
other millisecond: that adds a millisecond on average, and takes no time from the client's process.
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Final

from benchmarks.bench import Bench, Found, Place
from benchmarks.latency import RATES, START_S, register, registrations, send
from benchmarks.roles import running
from benchmarks.summary import distribution, percentiles
from readmodels.keys import FIRST_GENERATION, Keys, bucket_of
from readmodels.queries import Queries
from readmodels.views import USERS
from runtime.client import CommandClient
from runtime.redis import Line, redis_url
from runtime.settings import Settings

LOOK_EVERY_S: Final = 0.002
AT_ONCE: Final = 16
"""So many of those that are not there yet are looked for at a time, in the order of sending."""

SAMPLES_A_SECOND: Final = 200
WITHIN_S: Final = 60.0


def watch(settings: Settings, ids: Sequence[str], start_by: float) -> list[float]:
    """When each user's row was seen, on the monotonic clock. Raises TimeoutError."""
    keys = Keys(settings.topic_prefix, USERS.name, FIRST_GENERATION)
    seen: dict[str, float] = {}
    waiting = list(ids)
    with closing(Line(redis_url(settings))) as line:
        until = time.monotonic() + start_by + WITHIN_S
        while waiting:
            due = waiting[:AT_ONCE]
            found = line.run([("EXISTS", keys.key("user", bucket_of(one), one)) for one in due])
            now = time.monotonic()
            seen |= {one: now for one, there in zip(due, found, strict=True) if there}
            waiting = [one for one in due if one not in seen] + waiting[AT_ONCE:]
            if now > until:
                raise TimeoutError(f"{len(waiting)} of {len(ids)} rows did not come")
            time.sleep(LOOK_EVERY_S)
    return [seen[one] for one in ids]


def new_watcher() -> ProcessPoolExecutor:
    """Where ``watch`` runs: a process that is up already."""
    watcher = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    watcher.submit(_nothing).result()
    return watcher


def _nothing() -> None:
    """To have it there, with this module, a process has to have done something."""


def figures(bench: Bench) -> Found:
    """A processor and a projector beside each other, at each rate."""
    found: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    with (
        bench.place("visible") as place,
        running("processors", place.environment),
        running("readmodels", place.environment),
        CommandClient(place.settings) as client,
        new_watcher() as watcher,
    ):
        wait_for_both(place, client)
        measure(place, client, watcher, RATES[0], bench.seconds / 2)  # warms up
        for per_second in RATES:
            outcomes, views = measure(place, client, watcher, per_second, bench.seconds)
            told, seen = percentiles(outcomes), percentiles(views)
            at = f"at {per_second}/s"
            found |= {f"outcome {at}, {mark}": value for mark, value in told.items()}
            found |= {f"visible {at}, {mark}": value for mark, value in seen.items()}
            found |= {f"visible - outcome {at}, {mark}": seen[mark] - told[mark] for mark in told}
            curves[f"visible {at}"] = distribution(views)
            curves[f"outcome {at}"] = distribution(outcomes)
    return Found(found, curves)


def wait_for_both(place: Place, client: CommandClient) -> None:
    """Until a command is decided and in its view."""
    first = client.execute(register(0), START_S)
    with Queries(place.settings) as queries:
        queries.wait_for(USERS.name, first.aggregate_id, first.version, START_S)


def measure(
    place: Place,
    client: CommandClient,
    watcher: ProcessPoolExecutor,
    per_second: int,
    seconds: float,
) -> tuple[list[float], list[float]]:
    """Seconds from sending to the outcome of each command, and to the view of every so many-th."""
    commands = registrations(per_second, seconds)
    step = max(1, per_second // SAMPLES_A_SECOND)
    ids = [command.aggregate_id for command in commands[::step]]
    watched = watcher.submit(watch, place.settings, ids, seconds)
    sent, taken = send(client, commands, per_second)
    views = [seen - at for seen, at in zip(watched.result(), sent[::step], strict=True)]
    return taken, views
