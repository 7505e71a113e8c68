"""What an order placed by one call costs, coordinated in either way: orders/s, latency, records, bytes.

All roles run as processes beside each other on this machine, with the simulated payment gateway.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from benchmarks.bench import Bench, Found
from benchmarks.roles import running
from benchmarks.summary import percentiles
from benchmarks.volume import written
from commands.inventory import RegisterItem
from commands.user import RegisterUser
from orderflow.commanding import outgoing
from orderflow.placing import SAGA_OF, AsyncOrderClient, Placed
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded.ports import free_port
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
COMMANDS_TO_ORDERS: Final = 50
"""An order takes so much longer than a command that so many fewer are placed."""


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


def figures(bench: Bench) -> Found:
    """Each way of coordination, in turn."""
    with bench.place("placing") as where:
        return Found(measure(where.environment, bench.commands // COMMANDS_TO_ORDERS))


def measure(environment: Mapping[str, str], count: int) -> dict[str, float]:
    """All figures of both ways, in turn; and whether cost grows with what was before."""
    found: dict[str, float] = {}
    with shop(environment) as settings:
        for coordination in SAGA_OF:
            place(settings, coordination, count // 4, AT_ONCE)  # warms up
            before = _volume(settings)
            rate, _ = place(settings, coordination, count, AT_ONCE)
            after = _volume(settings)
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


def _volume(settings: Settings) -> tuple[int, int]:
    records, sizes = written(settings)
    return records, sizes.total()


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
