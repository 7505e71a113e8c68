"""What an order placed by one call costs, coordinated in either way: orders/s, latency, records, bytes.

All roles run as processes beside each other on this machine, with the simulated payment gateway.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from benchmarks.latency import percentiles
from benchmarks.roles import running
from commands.inventory import RegisterItem
from commands.user import RegisterUser
from orderflow.commanding import outgoing
from orderflow.placing import SAGA_OF, AsyncOrderClient, Placed
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded.ports import free_port
from runtime.records import incoming
from runtime.settings import Settings
from sagas.create_order import Coordination

SKUS: Final = 20
LINES: Final = 3
AT_ONCE: Final = 200
"""Orders under way at a time when throughput is measured."""

PIECES: Final = 1_000_000
ROLES: Final = (
    ("processors", "commands"),
    ("processors", "sagas"),
    ("processors", "reactor"),
    ("payments",),
)
HOT: Final = "sku-hot"


@contextmanager
def shop(environment: Mapping[str, str]) -> Iterator[Settings]:
    """Topics, a user, SKUs, and every role that an order needs."""
    port = free_port()
    here = {**environment, "ORDERFLOW_GATEWAY_URL": f"http://127.0.0.1:{port}"}
    settings = Settings.model_validate(here)
    topic_admin.apply(settings)
    with ExitStack() as stack:
        for module, *arguments in (("payments.simulated_gateway", str(port)), *ROLES):
            stack.enter_context(running(module, here, *arguments))
        with CommandClient(settings) as client:
            client.execute(outgoing("ada", RegisterUser(name="Ada")), 60)
            for sku in (*(f"sku-{n}" for n in range(SKUS)), HOT):
                client.execute(
                    outgoing(sku, RegisterItem(description="item", opening_stock=PIECES))
                )
        yield settings


def order(number: int) -> dict[str, Any]:
    """An order of some lines, all on different SKUs."""
    skus = [f"sku-{(number * LINES + line) % SKUS}" for line in range(LINES)]
    return _order(skus)


def _order(skus: list[str]) -> dict[str, Any]:
    lines = [{"sku": sku, "quantity": 1, "unit_price": 100} for sku in skus]
    return {"user_id": "ada", "currency": "GBP", "payment_token": "tok_approve", "lines": lines}


async def _place_all(
    settings: Settings, coordination: Coordination, count: int, at_once: int, skus: list[str] | None
) -> tuple[float, list[float]]:
    """Seconds in all, and of each order."""
    taken: list[float] = []
    room = asyncio.Semaphore(at_once)
    async with AsyncOrderClient(settings) as orders:

        async def place(number: int) -> None:
            async with room:
                asked = time.perf_counter()
                placed = await orders.place_order(
                    f"b-{uuid.uuid4().hex}",
                    timeout=120,
                    coordination=coordination,
                    **(_order(skus) if skus else order(number)),
                )
                if not isinstance(placed, Placed):
                    raise RuntimeError(f"an order was not placed: {placed}")
                taken.append(time.perf_counter() - asked)

        began = time.perf_counter()
        await asyncio.gather(*(place(number) for number in range(count)))
        return time.perf_counter() - began, taken


def place(
    settings: Settings,
    coordination: Coordination,
    count: int,
    at_once: int = 1,
    skus: list[str] | None = None,
) -> tuple[float, dict[str, float]]:
    """Orders a second, and the latency's percentiles, with so many under way at a time."""
    seconds, taken = asyncio.run(_place_all(settings, coordination, count, at_once, skus))
    return count / seconds, percentiles(taken)


def volume(settings: Settings) -> tuple[int, int]:
    """Records and bytes (keys, values, headers; not compressed) on all topics of the prefix."""
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
        records = total = 0
        while places:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    records += 1
                    total += len(message) + len(message.key() or b"")
                    total += sum(len(n) + len(v or b"") for n, v in incoming(message).headers)
                elif error.code() == KafkaError._PARTITION_EOF:
                    places.discard((message.topic() or "", message.partition() or 0))
        return records, total
    finally:
        consumer.close()


def figures(environment: Mapping[str, str], count: int) -> dict[str, float]:
    """All figures of both ways, in turn; and whether cost grows with what was before."""
    found: dict[str, float] = {}
    with shop(environment) as settings:
        for coordination in SAGA_OF:
            place(settings, coordination, count // 4, AT_ONCE)  # warms up
            before = volume(settings)
            rate, _ = place(settings, coordination, count, AT_ONCE)
            after = volume(settings)
            found[f"{coordination}, orders/s"] = rate
            found[f"{coordination}, records an order"] = (after[0] - before[0]) / count
            found[f"{coordination}, bytes an order"] = (after[1] - before[1]) / count
            _, one_by_one = place(settings, coordination, count // 10)
            found |= {f"{coordination}, one by one, {k}": v for k, v in one_by_one.items()}
        found |= _growth(settings, count)
        last, _ = place(settings, "orchestration", count, AT_ONCE)
        found["orchestration after all of these, orders/s"] = last
        found["ratio, after all to before"] = last / found["orchestration, orders/s"]
    return found


def _growth(settings: Settings, count: int) -> dict[str, float]:
    """Orders/s on one SKU, first with hardly any open reservation on it, then with thousands."""
    first, _ = place(settings, "orchestration", count // 4, AT_ONCE, [HOT])
    place(settings, "orchestration", count, AT_ONCE, [HOT])
    last, _ = place(settings, "orchestration", count // 4, AT_ONCE, [HOT])
    return {
        "on one SKU, orders/s": first,
        f"on one SKU with {count + count // 4} open reservations, orders/s": last,
        "ratio, with to without reservations": last / first,
    }
