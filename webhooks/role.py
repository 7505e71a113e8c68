"""The role `webhooks` of a deployment: signals in, exit code out. Any number of processes; a consumer
group shares the partitions out.
"""

import asyncio
import logging
import random
import signal
from collections.abc import Coroutine
from contextlib import closing
from functools import partial

from confluent_kafka import KafkaException

from runtime import topic_admin
from runtime.kafka import KafkaNotConfigured
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings, networks
from runtime.topic_admin import TopicsUnfit, topics_of
from runtime.watchdog import Watchdog
from schemas.topics import AGGREGATES
from schemas.webhook import WebhookStatus
from webhooks.catching_up import CatchingUp
from webhooks.course import LARGE_AT_ONCE, Tools
from webhooks.history import History
from webhooks.policy import policy_of
from webhooks.positions import Positions
from webhooks.posting import Poster
from webhooks.registry import Registry, Webhook
from webhooks.reporting import Reporter
from webhooks.requests import Requests

logger = logging.getLogger(__name__)


def run_webhooks(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT and returns the exit code. Call it from the main thread."""
    begin_role(settings)
    try:
        with Watchdog("webhooks"):
            asyncio.run(_run(settings))
    except (KafkaException, KafkaNotConfigured, TopicsUnfit) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED
    return EXIT_OK


async def _run(settings: Settings) -> None:
    policy = policy_of(settings)
    async with Poster(policy.timeout_s, networks(settings.webhook_allowed_networks)) as poster:
        role = WebhooksRole(settings, poster)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, role.stop)
        await role.run()


class WebhooksRole:
    """The history, read once for all webhooks, and what is asked for by hand. ``run`` until ``stop``, on one
    loop.
    """

    def __init__(self, settings: Settings, poster: Poster) -> None:
        self._settings = settings
        self._poster = poster
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()

    def stop(self) -> None:
        """Lets ``run`` end. What is under way is cut off, and delivered again after the next start."""
        self._stopping.set()

    async def run(self) -> None:
        """Until stopped. Raises TopicsUnfit and KafkaException: both need a person or a restart."""
        await asyncio.to_thread(topic_admin.require, self._settings)
        reporter = Reporter(self._settings)
        async with CatchingUp(self._settings) as behind:
            tools = self._tools(reporter, behind)
            with closing(Positions(self._settings)) as positions:
                history = History(tools, positions, self._start)
                registry = Registry(self._settings, partial(_tell, history))
                requests = Requests(registry, tools)
                self._start(registry.run(self._stopping))
                self._start(requests.follower().run(self._stopping, reporter.broken))
                self._start(history.run(self._stopping, reporter.broken))
                logger.info("webhooks started")
                try:
                    # The wish to stop, or what nothing can go on from.
                    (await self._ended.get()).result()
                finally:
                    await self._end()
                    await asyncio.to_thread(reporter.close)
        logger.info("webhooks stopped")

    def _tools(self, reporter: Reporter, behind: CatchingUp) -> Tools:
        topics = topics_of(self._settings)
        return Tools(
            self._settings,
            policy_of(self._settings),
            self._poster,
            reporter,
            random.Random(),
            behind,
            asyncio.Semaphore(LARGE_AT_ONCE),
            {topics.history(name): name for name in AGGREGATES},
        )

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._notice)
        return task

    def _notice(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # by who started it
            return
        # What a webhook had to do and has done ends in peace, and nobody else has to.
        if task.exception() is not None or self._stopping.is_set():
            self._ended.put_nowait(task)

    async def _end(self) -> None:
        """Ends every task; each commits what is done."""
        self._stopping.set()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _tell(history: History, webhook: Webhook) -> None:
    history.change(webhook, deleted=webhook.state.status is WebhookStatus.DELETED)
