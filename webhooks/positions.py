"""Where each webhook stands, and where a new one begins: offsets of a group that has no members.

The history is read by one consumer for all webhooks, so no webhook is a member of a group; the broker keeps
its offsets all the same, under a group id of the webhook's own. Such offsets expire a retention after their
last commit, so the role commits them again from time to time (`Positions.keep`), also those of a webhook
that is paused.

A subscription says since when it follows an aggregate. That becomes an offset when the role first sees the
webhook, and is committed at once, with the promise (``since``) beside it; from then on the offset alone
counts. An offset with another promise beside it belongs to an earlier time in which the aggregate was
followed, before it was left out and named again: it is not this one's.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime import kafka
from runtime.condition import Condition
from runtime.lanes import Place
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from webhooks.registry import Webhook, former_group_id, group_id

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_S: Final = 10.0
MAX_COMMITS: Final = 32
"""Commits that are under way at once."""

ASKING_THREADS: Final = 8
"""To ask is to wait. Partitions that change hands are not read until all positions are known."""


def since_of(settings: Settings, webhook: Webhook) -> dict[str, int]:
    """Return for each topic that a webhook follows since when: epoch milliseconds, 0 is the beginning."""
    topics = topics_of(settings)
    return {topics.history(name): at_ms for name, at_ms in webhook.state.since.items()}


def known_offsets(
    settings: Settings, webhook: Webhook, places: Collection[Place]
) -> dict[Place, int]:
    """Return the committed offsets that keep the webhook's promises. Blocks. Raises KafkaException."""
    since = since_of(settings, webhook)
    found: dict[Place, int] = {}
    # Until this release each webhook was a member of a group of its own; what that one has is taken over.
    for group in (group_id(settings, webhook.id), former_group_id(settings, webhook.id)):
        missing = [TopicPartition(*place) for place in places if place not in found]
        if missing:
            with closing(kafka.group_asker(settings, group)) as asker:
                call = _committed(asker, missing)
            found |= {
                (at.topic, at.partition): at.offset
                for at in call
                if at.offset >= 0 and at.metadata == str(since[at.topic])
            }
    return found


def _committed(asker: Consumer, wanted: list[TopicPartition]) -> list[TopicPartition]:
    return kafka.until_answered(lambda: asker.committed(wanted, CALL_S), 3 * CALL_S)


class Positions:
    """On one event loop; a constant number of threads, however many webhooks there are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(kafka.admin(settings))
        self._threads = ThreadPoolExecutor(ASKING_THREADS, "webhooks-positions")
        self._turns = asyncio.Semaphore(MAX_COMMITS)
        self._condition = Condition("positions of webhooks")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def begin(self, webhook: Webhook, places: list[Place]) -> dict[Place, int]:
        """Return where the webhook stood, or where it has to begin. Raises KafkaException."""
        found = await self._in_thread(lambda: known_offsets(self._settings, webhook, places))
        new = [place for place in places if place not in found]
        if new:
            first = await self._in_thread(lambda: self._first_offsets(webhook, new))
            await self.keep(webhook, first)
            found |= first
        return found

    async def keep(self, webhook: Webhook, offsets: Mapping[Place, int]) -> bool:
        """Commit offsets of a webhook. Returns False if they are not committed: the next time makes up."""
        since = since_of(self._settings, webhook)
        kept = [
            TopicPartition(*place, offset, str(since[place[0]]))
            for place, offset in offsets.items()
            if place[0] in since
        ]
        if not kept:
            return True
        request = ConsumerGroupTopicPartitions(group_id(self._settings, webhook.id), kept)
        async with self._turns:
            try:
                (answer,) = self._admin.alter_consumer_group_offsets(
                    [request], request_timeout=CALL_S
                ).values()
                # Shielded: the library settles the answer, also of a caller that has gone.
                done = await asyncio.shield(asyncio.wrap_future(answer))
            except KafkaException as fault:
                self._condition.broken(fault)
                return False
        refused = next((at.error for at in done.topic_partitions if at.error is not None), None)
        if refused is not None:
            self._condition.broken(KafkaException(refused))
            return False
        self._condition.whole()
        return True

    def _first_offsets(self, webhook: Webhook, places: list[Place]) -> dict[Place, int]:
        since = since_of(self._settings, webhook)
        ends = self._offsets({place: OffsetSpec.latest() for place in places})
        # Asked after the end: what is written in between has been found by one of the two.
        from_then_on = self._offsets(
            {
                place: OffsetSpec.for_timestamp(at_ms) if at_ms else OffsetSpec.earliest()
                for place in places
                for at_ms in (since[place[0]],)
            }
        )
        # None of that time yet: then from the end on.
        return {
            place: offset if offset >= 0 else ends[place] for place, offset in from_then_on.items()
        }

    def _offsets(self, wanted: dict[Place, OffsetSpec]) -> dict[Place, int]:
        # Committed ones: the end is in front of a transaction that is still open, not behind it.
        def ask() -> dict[Place, int]:
            answers = self._admin.list_offsets(
                {TopicPartition(*place): spec for place, spec in wanted.items()},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=CALL_S,
            )
            return {
                (at.topic, at.partition): answer.result().offset for at, answer in answers.items()
            }

        return kafka.until_answered(ask, 3 * CALL_S)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
