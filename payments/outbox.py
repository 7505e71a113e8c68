"""The outbox of payments: reads their history, has the gateway asked, commits what has ended.

    history -> lane of the payment -> gateway -> command, acknowledged by the broker -> offset

A crash between any two of these repeats what comes after the committed offset: the gateway knows the
key, the processor knows the command's id, so repeating changes nothing. That is also why a group
without offsets may begin at the beginning of the history.

Runs as any number of processes in one consumer group. The consumer lives on a thread of its own;
rebalances come in there and are carried out on the event loop, where everything else happens.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from payments.asking import Asker
from payments.gateway import PaymentGateway
from payments.lanes import Lanes, Place
from payments.sending import AGGREGATE, Sender
from runtime import kafka, topic_admin
from runtime.records import incoming
from runtime.settings import Settings

logger = logging.getLogger(__name__)

ROLE: Final = "payments"
POLL_S: Final = 0.1
MOST_AT_ONCE: Final = 500
MOST_UNFINISHED: Final = 10_000
"""Events in memory. Beyond it nothing more is read until half of them have ended: then so many payments
are stuck that the gateway itself is.
"""
COMMIT_EVERY_S: Final = 0.5

T = TypeVar("T")


def group_id(settings: Settings) -> str:
    """Consumer group of the outboxes."""
    return f"{settings.topic_prefix}.{ROLE}"


class PaymentsOutbox:
    """One process' part of the group. ``run`` until ``stop``, on one event loop."""

    def __init__(self, settings: Settings, gateway: PaymentGateway) -> None:
        self._settings = settings
        self._gateway = gateway
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._commit_at = 0.0
        self._full = False
        self._pace_changed = False

    def stop(self) -> None:
        """Lets ``run`` end. What is under way is cut off, and asked again after the next start."""
        self._stopping.set()

    async def run(self) -> None:
        """Until stopped. Raises TopicsUnfit and KafkaException: both need a person or a restart."""
        await asyncio.to_thread(topic_admin.require, self._settings)
        self._sender = Sender(self._settings)
        self._lanes = Lanes(Asker(self._gateway, self._sender))
        self._consumer = Consumer(
            kafka.repeating_consumer(self._settings, group_id(self._settings))
        )
        self._thread = ThreadPoolExecutor(1, "payments-consumer")
        try:
            topic = topic_admin.topics_of(self._settings).history(AGGREGATE)
            self._consumer.subscribe(
                [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            logger.info("payments started")
            while not self._stopping.is_set():
                await self._turn()
            await self._commit()
        finally:
            self._lanes.drop_all()
            await self._in_thread(self._consumer.close)
            self._thread.shutdown()
            await asyncio.to_thread(self._sender.close)
        logger.info("payments stopped")

    async def _turn(self) -> None:
        self._set_pace()
        for message in await self._in_thread(self._consume):
            if kafka.is_record(message):
                self._lanes.take(incoming(message))
        for fate in (self._lanes.failed, self._sender.broken):
            if fate.done():
                fate.result()
        if time.monotonic() >= self._commit_at:
            await self._commit()
            self._commit_at = time.monotonic() + COMMIT_EVERY_S

    def _set_pace(self) -> None:
        limit = MOST_UNFINISHED // 2 if self._full else MOST_UNFINISHED
        full = self._lanes.unfinished >= limit
        self._pace_changed |= full != self._full
        self._full = full

    def _consume(self) -> list[Message]:
        """On the consumer's thread. Waits for a first message, not for more."""
        if self._pace_changed:  # only then: each call throws away what was fetched ahead
            self._pace_changed = False
            set_pace = self._consumer.pause if self._full else self._consumer.resume
            set_pace(self._consumer.assignment())
        return kafka.what_came(self._consumer, MOST_AT_ONCE, POLL_S)

    async def _commit(self) -> None:
        offsets = self._lanes.due()
        if not offsets:
            return
        stands = await self._in_thread(lambda: self._try_commit(offsets))
        if stands:
            self._lanes.committed(offsets)

    def _try_commit(self, offsets: dict[Place, int]) -> bool:
        """On the consumer's thread. A commit that fails is made up by the next one, or by repeating."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, offset) for place, offset in offsets.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            logger.warning("offsets not committed: %s", error)
            return False
        return True

    # Rebalances, on the consumer's thread inside of ``consume`` and ``close``; the loop waits for it.

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._pace_changed = True  # what a rebalance brings is not paused
        self._on_loop(lambda: self._lanes.own(_places(partitions)))
        logger.info("assigned: %s", [at.partition for at in partitions])

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        places = _places(partitions)
        offsets = self._on_loop(lambda: self._release(places))
        if offsets:
            self._try_commit(offsets)

    def _release(self, places: list[Place]) -> dict[Place, int]:
        """On the loop: what has ended by now can be committed, the rest is the next owner's."""
        offsets = self._lanes.due(places)
        self._lanes.drop(places)
        return offsets

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_loop(lambda: self._lanes.drop(_places(partitions)))

    def _on_loop(self, call: Callable[[], T]) -> T:
        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # Shielded: a call that goes on in its thread while nobody waits for it would race with the next.
        return await asyncio.shield(self._loop.run_in_executor(self._thread, call))


def _places(partitions: Iterable[TopicPartition]) -> list[Place]:
    return [(at.topic, at.partition) for at in partitions]
