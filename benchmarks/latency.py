"""How long a sender waits: from ``submit`` to the outcome, at a steady rate whatever the answers do."""

import json
import statistics
import threading
import time
import uuid
from concurrent.futures import Future

from readmodels.queries import Queries
from readmodels.views import USERS
from runtime.client import CommandClient, OutgoingCommand
from runtime.settings import Settings
from schemas.records import Outcome


def register(number: int) -> OutgoingCommand:
    """A command without neighbours: each registers a user of its own."""
    unique = f"u-{number}-{uuid.uuid4().hex[:8]}"
    data = json.dumps({"name": "Ada"}).encode()
    return OutgoingCommand("user", unique, "RegisterUser", data, unique)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50 ms": cuts[49] * 1000, "p99 ms": cuts[98] * 1000}


def send_to_outcome(settings: Settings, per_second: int, seconds: float) -> dict[str, float]:
    """Percentiles of send → outcome. An open loop: a slow answer delays nobody's question."""
    taken: list[float] = []
    lock = threading.Lock()
    with CommandClient(settings) as client:
        client.execute(register(0))  # opens the connections
        started = time.perf_counter()
        futures = []
        for number in range(int(per_second * seconds)):
            due = started + number / per_second
            time.sleep(max(0.0, due - time.perf_counter()))
            asked = time.perf_counter()

            def done(_: Future[Outcome], asked: float = asked) -> None:
                with lock:
                    taken.append(time.perf_counter() - asked)

            future = client.submit(register(number))
            future.add_done_callback(done)
            futures.append(future)
        for future in futures:
            future.result(30)
    return percentiles(taken)


def send_to_visible(settings: Settings, count: int) -> dict[str, float]:
    """Percentiles of send → outcome → the view has it, one command after the other."""
    taken = []
    with CommandClient(settings) as client, Queries(settings) as queries:
        for number in range(count + 1):
            asked = time.perf_counter()
            outcome = client.execute(register(number))
            queries.wait_for(USERS.name, outcome.aggregate_id, outcome.version)
            taken.append(time.perf_counter() - asked)
    return percentiles(taken[1:])  # the first opened the connections
