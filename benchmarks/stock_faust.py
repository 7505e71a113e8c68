"""The comparator of the projector: Faust as it comes, with the same projection and the same scripts.

A stock agent over the stock transport takes a thousand events at a time, brings them into the view `orders`
under a prefix of its own, and counts them. It keeps no positions, mends nothing, has no dead letters, and it
reads uncommitted records.

``python -m benchmarks.stock_faust``
"""

import asyncio
from typing import Any

import faust
from yarl import URL

from readmodels import positions
from readmodels.broker import addresses
from readmodels.keys import FIRST_GENERATION, Keys
from readmodels.records import read
from readmodels.steps import drive_async
from readmodels.views import ORDERS
from runtime.redis import AsyncLine, redis_url
from runtime.settings import Settings
from runtime.topic_admin import topics_of

BATCH = 1_000
WITHIN_S = 0.05


def counter_key(settings: Settings) -> str:
    """String: how many events are in the view."""
    return f"{settings.topic_prefix}-faust:events"


def build_app(settings: Settings) -> faust.App:
    """The application; what is not said here is as Faust has it."""
    app = faust.App(
        f"{settings.topic_prefix}.stock-faust",
        broker=[URL(f"kafka://{address}") for address in addresses(settings)],
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        datadir=str(settings.home.absolute() / "stock-faust"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        worker_redirect_stdouts=False,
    )
    line = AsyncLine(redis_url(settings))
    keys = Keys(f"{settings.topic_prefix}-faust", ORDERS.name, FIRST_GENERATION)

    @app.agent(app.topic(topics_of(settings).events("order")))
    async def _project(stream: Any) -> None:  # its protocol has no `take_events`
        async for events in stream.take_events(BATCH, within=WITHIN_S):
            changes = [
                change
                for event in events
                if (change := read(event.key, event.value, None, ORDERS.states, ORDERS.project))
            ]
            await drive_async(line, positions.apply_batch([(ORDERS, keys, changes)], {}))
            await line.run([("INCRBY", counter_key(settings), len(events))])

    return app


def main() -> None:
    """Runs until SIGTERM."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    faust.Worker(build_app(Settings()), loglevel="ERROR", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
