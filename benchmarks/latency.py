"""How long a sender waits: from ``submit`` to the outcome, at a steady rate whatever the answers do.

The comparator is the bare loop, asked by the same client: it answers every command with an outcome and does
nothing else for it.
"""

import json
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Final

from benchmarks import bare_loop
from benchmarks.bench import Bench, Found, Place
from benchmarks.roles import Process, running
from benchmarks.summary import distribution, percentiles
from runtime.client import CommandClient, OutgoingCommand
from runtime.settings import Settings
from schemas.records import Outcome

RATES: Final = (200, 2_000)
OURS: Final = "processor"
BARE: Final = "bare loop"
START_S: Final = 60.0
WITHIN_S: Final = 60.0


def register(number: int) -> OutgoingCommand:
    """A command without neighbours: each registers a user of its own."""
    unique = f"u-{number}-{uuid.uuid4().hex[:8]}"
    data = json.dumps({"name": "Ada"}).encode()
    return OutgoingCommand("user", unique, "RegisterUser", data, unique)


def registrations(per_second: int, seconds: float) -> list[OutgoingCommand]:
    """As many as are sent in this time."""
    return [register(number) for number in range(int(per_second * seconds))]


def send(
    client: CommandClient, commands: Sequence[OutgoingCommand], per_second: int
) -> tuple[list[float], list[float]]:
    """When each command was sent (monotonic clock), and how many seconds later its outcome was there.

    An open loop: a slow answer delays nobody's question.
    """
    sent = [0.0] * len(commands)
    taken = [0.0] * len(commands)
    left = threading.Semaphore(0)
    started = time.monotonic()
    for number, command in enumerate(commands):
        due = started + number / per_second
        time.sleep(max(0.0, due - time.monotonic()))

        def done(_: Future[Outcome], number: int = number) -> None:
            taken[number] = time.monotonic() - sent[number]
            left.release()

        sent[number] = time.monotonic()
        client.submit(command).add_done_callback(done)
    for _ in commands:
        if not left.acquire(timeout=WITHIN_S):
            raise TimeoutError(f"an outcome did not come within {WITHIN_S:g} s")
    return sent, taken


def measure(settings: Settings, per_second: int, seconds: float) -> list[float]:
    """Seconds from sending to the outcome of each command."""
    with CommandClient(settings) as client:
        client.execute(register(0), START_S)  # opens the connections; waits until somebody decides
        return send(client, registrations(per_second, seconds), per_second)[1]


def figures(bench: Bench) -> Found:
    """Both, one after the other, at each rate."""
    found: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    taken = {name: _of(bench, name) for name in bench.in_turn([OURS, BARE])}
    for per_second in RATES:
        ours, bare = (percentiles(taken[name][per_second]) for name in (OURS, BARE))
        for name, of in ((OURS, ours), (BARE, bare)):
            found |= {f"{name} at {per_second}/s, {mark}": value for mark, value in of.items()}
            curves[f"{name} at {per_second}/s"] = distribution(taken[name][per_second])
        for mark in ours:
            of_both = f"{OURS} / {BARE} at {per_second}/s, {mark.removesuffix(' ms')}"
            found[of_both] = ours[mark] / bare[mark]
    return Found(found, curves)


def _of(bench: Bench, name: str) -> dict[int, list[float]]:
    with bench.place("latency") as place, _answering(name, place):
        measure(place.settings, RATES[0], bench.seconds / 2)  # warms up
        return {rate: measure(place.settings, rate, bench.seconds) for rate in RATES}


def _answering(name: str, place: Place) -> AbstractContextManager[Process]:
    if name == OURS:
        return running("processors", place.environment)
    outputs = place.make_topics(bare_loop.OUTPUTS)
    return running("benchmarks.bare_loop", place.environment, "user", *outputs)
