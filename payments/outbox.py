"""The outbox of payments: reads their history, has the gateway asked, commits what has ended.

    history -> lane of the payment -> gateway -> command, acknowledged by the broker -> offset

A crash between any two of these repeats what comes after the committed offset: the gateway knows the
key, the processor knows the command's id, so repeating changes nothing. That is also why a group
without offsets may begin at the beginning of the history.

Runs as any number of processes in one consumer group; `runtime.follower` has the loop.
"""

import asyncio
import logging
from typing import Final

from payments.asking import Asker
from payments.gateway import PaymentGateway
from payments.lanes import PaymentLanes
from payments.sending import AGGREGATE, Sender
from runtime import kafka, topic_admin
from runtime.follower import Follower
from runtime.settings import Settings
from runtime.topic_watch import TopicWatch
from schemas import limits

logger = logging.getLogger(__name__)

ROLE: Final = "payments"
CHECK_S: Final = 1.0
MOST_UNFINISHED: Final = 10_000
MOST_BYTES: Final = 64 * limits.MIB
"""Events in memory, and their size. Beyond one of these nothing more is read until half of it has ended: then
so many payments are stuck that the gateway itself is.
"""


def group_id(settings: Settings) -> str:
    """Consumer group of the outboxes."""
    return f"{settings.topic_prefix}.{ROLE}"


class PaymentsOutbox:
    """One process' part of the group. ``run`` until ``stop``, on one event loop."""

    def __init__(self, settings: Settings, gateway: PaymentGateway) -> None:
        self._settings = settings
        self._gateway = gateway
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Lets ``run`` end. What is under way is cut off, and asked again after the next start."""
        self._stopping.set()

    async def run(self) -> None:
        """Until stopped. Raises TopicsUnfit and KafkaException: both need a person or a restart."""
        await asyncio.to_thread(topic_admin.require, self._settings)
        topics = topic_admin.topics_of(self._settings)
        watched = [topics.history(AGGREGATE), topics.commands(AGGREGATE)]
        watch = await asyncio.to_thread(TopicWatch.of, self._settings, watched)
        sender = Sender(self._settings)
        lanes = PaymentLanes(Asker(self._gateway, sender))
        follower = Follower(
            ROLE,
            kafka.repeating_consumer(self._settings, group_id(self._settings)),
            [topics.history(AGGREGATE)],
            lanes,
            full=lambda full: (
                lanes.unfinished >= (MOST_UNFINISHED // 2 if full else MOST_UNFINISHED)
                or lanes.held_bytes >= (MOST_BYTES // 2 if full else MOST_BYTES)
            ),
        )
        logger.info("payments started")
        watching = asyncio.create_task(_check(watch))
        try:
            await follower.run(self._stopping, sender.broken, watching)
        finally:
            watching.cancel()
            await asyncio.to_thread(sender.close)
        logger.info("payments stopped")


async def _check(watch: TopicWatch) -> None:
    """Without end. Raises TopicsUnfit."""
    while True:
        watch.look()
        await asyncio.sleep(CHECK_S)
