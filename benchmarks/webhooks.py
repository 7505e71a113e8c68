"""What webhooks cost and how long one waits for an event: 1, 50 and 500, with good and bad neighbours.

Deliveries of all webhooks together come at the same rate whatever their number, so that the number is what is
compared. Beside it, in the same round: one webhook alone.
"""

import asyncio
import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psutil
from aiohttp import web

from benchmarks.bench import Bench, Found, Place
from benchmarks.roles import Process, running
from benchmarks.summary import percentiles
from commands.inventory import ReceiveStock, RegisterItem
from commands.webhook import CreateWebhook
from orderflow.commanding import outgoing
from runtime.client import CommandClient

NUMBERS: Final = (1, 50, 500)
SMALL_NUMBERS: Final = (1, 50)
DELIVERIES_PER_S: Final = 200.0
MOST_EVENTS_PER_S: Final = 10.0
GOOD_AMONG_BAD: Final = 10
"""Of so many webhooks one is well, where its neighbours are bad."""

IDLE_S: Final = 10.0
WITHIN_S: Final = 300.0
SECRET: Final = "whsec_" + base64.b64encode(b"a secret of a benchmark's hooks").decode()
SKU: Final = "sku"


class Endpoint:
    """An HTTP server on a thread: when which version of the SKU came to which webhook."""

    def __init__(self) -> None:
        self.came: dict[tuple[int, int], float] = {}
        """Number of the webhook and version of the SKU → seconds on the monotonic clock."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._stop = asyncio.Event()
        thread.start()
        self._ready.wait()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            self._loop.close()

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_post("/{number}", self._take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        version = (await request.json())["data"]["version"]
        self.came.setdefault((int(request.match_info["number"]), version), now)
        return web.Response()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        yield server.getsockname()[1]


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def figures(bench: Bench) -> Found:
    """Each number of webhooks with good neighbours and with bad ones; 500 of them with ``large``."""
    found: dict[str, float] = {}
    p50 = {}
    for number in bench.to_and_fro(NUMBERS if bench.large else SMALL_NUMBERS):
        for bad in (False, True) if number > 1 else (False,):
            name = f"{number}, bad neighbours" if bad else f"{number}"
            with bench.place("webhooks", partitions=2) as place:
                figures = _measure(place, number, bad, 2 * bench.seconds)
            found |= {f"{name}, {what}": value for what, value in figures.items()}
            p50[name] = figures["p50 ms"]
    ratios = {f"{name} / 1, p50": value / p50["1"] for name, value in p50.items() if name != "1"}
    return Found(found | ratios)


def _measure(place: Place, number: int, bad: bool, seconds: float) -> dict[str, float]:
    endpoint = Endpoint()
    environment = {**place.environment, "ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32"}
    with (
        endpoint.serving(),
        silent_port() as silent,
        refusing_port() as refusing,
        running("processors", environment),
        CommandClient(place.settings) as client,
    ):
        ill = (f"127.0.0.1:{refusing}", f"127.0.0.1:{silent}", "name-{}.invalid")
        good = set(range(0, number, GOOD_AMONG_BAD if bad else 1))
        for each in range(number):
            host = f"127.0.0.1:{endpoint.port}" if each in good else ill[each % 3].format(each)
            hook = CreateWebhook(
                url=f"http://{host}/{each}", event_types=("inventory.*",), secret=SECRET
            )
            client.execute(outgoing(f"w-{each}", hook), WITHIN_S)
        began = time.monotonic()
        with running("webhooks", environment) as role:
            client.execute(outgoing(SKU, RegisterItem(description="item", opening_stock=0)))
            _wait(role, lambda: {(each, 1) for each in good} <= endpoint.came.keys())
            found = {"all deliver after, s": time.monotonic() - began}
            found |= _idle(psutil.Process(role.pid))
            per_second = min(MOST_EVENTS_PER_S, DELIVERIES_PER_S / len(good))
            count = max(3, int(per_second * seconds))
            sent = _send(client, count, per_second)
            due = {(each, version) for each in good for version in sent}
            _wait(role, lambda: due <= endpoint.came.keys())
            waits = [endpoint.came[each, version] - sent[version] for each, version in due]
            return found | percentiles(waits) | {"deliveries": len(waits)}


def _send(client: CommandClient, count: int, per_second: float) -> dict[int, float]:
    """Version of the SKU → when its command was sent, on the monotonic clock."""
    sent = {}
    first = time.monotonic()
    for turn in range(count):
        time.sleep(max(0.0, first + turn / per_second - time.monotonic()))
        sent[turn + 2] = time.monotonic()
        client.submit(outgoing(SKU, ReceiveStock(quantity=1)))
    return sent


def _idle(role: psutil.Process) -> dict[str, float]:
    """Threads, memory and CPU while nothing happens."""
    before = role.cpu_times()
    time.sleep(IDLE_S)
    after = role.cpu_times()
    used = after.user + after.system - before.user - before.system
    return {
        "threads": role.num_threads(),
        "resident, MB": role.memory_info().rss / 1e6,
        "idle, % of a core": used / IDLE_S * 100,
    }


def _wait(role: Process, done: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not done():
        if role.poll() is not None:
            raise RuntimeError("the role has ended")
        if time.monotonic() > until:
            raise TimeoutError(f"deliveries are missing after {WITHIN_S:g} s")
        time.sleep(0.05)
