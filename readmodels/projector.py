"""The projector as a role of a deployment: signals in, exit code out. Run as many as you like."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from readmodels import preflight
from readmodels.views import View, named
from runtime import watchdog
from runtime.kafka import KafkaNotConfigured
from runtime.redis import RedisNotConfigured
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit
from runtime.topic_watch import TopicWatch

if TYPE_CHECKING:
    import faust

logger = logging.getLogger(__name__)

STOP_WITHIN_S: Final = 8.0
EXIT_WITHIN_S: Final = 12.0
REDIS_PAUSE_S: Final = 1.0
_NOISY: Final = ("faust", "mode", "aiokafka", "readmodels.transport")


def run_projector(settings: Settings, views: Sequence[str] | None = None) -> int:
    """Feed the views (all, if none are named) until SIGTERM or SIGINT; returns the exit code.

    Call it from the main thread.
    """
    _log(settings)
    try:
        with watchdog.Watchdog("projector"):
            return asyncio.run(watchdog.beating(_run(settings, named(views))))
    except (
        KafkaException,
        KafkaNotConfigured,
        RedisNotConfigured,
        TopicsUnfit,
        preflight.Refused,
    ) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED


async def _run(settings: Settings, views: tuple[View, ...]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ids: dict[str, str] = {}
    if await _first(stop, _preflight(settings, views, ids)):
        return EXIT_OK
    # Faust takes a while to import, and only this process needs it.
    from readmodels.app import build_app, build_feed, consumer_of

    feed = build_feed(settings, views, ids)
    app = build_app(settings, views, feed)
    try:
        if await _first(stop, _serve(app, feed, consumer_of, TopicWatch(settings, ids))):
            return EXIT_OK
        return EXIT_REFUSED
    finally:
        await _shut_down(app)
        await feed.close()


async def _serve(app: faust.App, feed: Any, consumer_of: Any, topics: TopicWatch) -> None:
    """Returns when the application ended by itself, which it should not."""
    from readmodels.app import ConsumerReader
    from readmodels.watch import Watch

    feed.reader = ConsumerReader(consumer_of(app))
    await app.start()  # returns after the first assignment
    logger.info("projector is running")
    watch = asyncio.create_task(Watch(feed, app, consumer_of(app), topics).run())
    ended = asyncio.create_task(app.wait_until_stopped())
    crashed = asyncio.create_task(app._crashed.wait())
    tasks = (watch, ended, crashed)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        reason = app.crash_reason
        logger.error("the application ended: %r", reason, exc_info=reason)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _preflight(settings: Settings, views: tuple[View, ...], ids: dict[str, str]) -> None:
    """Waits for Redis; everything else that is wrong is a person's matter. Fills in the topics' ids."""
    told = False
    while True:
        try:
            ids |= await asyncio.to_thread(preflight.check, settings, views)
            return
        except (RedisError, OSError) as fault:
            if not told:
                logger.warning("Redis: %s; waiting for it", fault)
            told = True
            await asyncio.sleep(REDIS_PAUSE_S)


async def _first(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do the work until told to stop; says whether it was. Raises what the work raises."""
    stopped = asyncio.create_task(stop.wait())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((stopped, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return stop.is_set()
    finally:
        for one in (stopped, task):
            one.cancel()
        await asyncio.gather(stopped, task, return_exceptions=True)


async def _shut_down(app: faust.App) -> None:
    """Leave the group in order; what hangs is left behind, for nothing is lost with it."""
    guard = threading.Timer(EXIT_WITHIN_S, _give_up)
    guard.daemon = True
    guard.start()
    try:
        await asyncio.wait_for(app.stop(), STOP_WITHIN_S)
    except TimeoutError:
        logger.warning("the application did not stop within %g s", STOP_WITHIN_S)
    pending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=STOP_WITHIN_S)
    guard.cancel()


def _give_up() -> None:
    """A library waits for ever for a thread that has ended: end the process."""
    logger.warning("not stopped within %g s; ending the process", EXIT_WITHIN_S)
    os._exit(EXIT_OK)


def _log(settings: Settings) -> None:
    """Our own lines at the level of the settings; the libraries' only from warnings on."""
    begin_role(settings)
    for name in _NOISY:
        logging.getLogger(name).setLevel(
            logging.DEBUG if settings.log_level == "DEBUG" else logging.WARNING
        )
