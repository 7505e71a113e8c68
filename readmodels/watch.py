"""Looks twice a second whether Redis, the reader and the agents still agree, and mends what does not.

Batches get lost on purpose: a rebalance empties the agents' queues. Redis gets emptied without a word.
A new generation goes live. Transaction markers move the end of a partition, but bring no record. None
of this needs a case of its own: the position in Redis is compared with what was applied and read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from faust import App

from readmodels.feed import REDIS_FAULTS, Feed
from readmodels.positions import TopicPart
from readmodels.transport import BatchConsumer
from runtime.topic_watch import TopicWatch

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 0.5
LOST_AFTER_S: Final = 3.0
"""Records were handed out, no agent is at work, and nothing came of them for this long."""


class Watch:
    """One a process; `run` ends only by being cancelled, by a bug, or when a topic was recreated."""

    def __init__(self, feed: Feed, app: App, consumer: BatchConsumer, topics: TopicWatch) -> None:
        self._feed = feed
        self._app = app
        self._consumer = consumer
        self._topics = topics
        self._waiting: dict[TopicPart, tuple[int, float]] = {}

    async def run(self) -> None:
        """Look, again and again. Raises TopicsRecreated."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._topics.look()
            try:
                await self.look()
            except REDIS_FAULTS as fault:
                self._feed.redis_is(fault)
            else:
                self._feed.redis_is(None)

    async def look(self) -> None:
        """One round. Raises RedisError and its kin."""
        if self._app.rebalancing or not self._consumer.flow_active:
            self._waiting.clear()
            return
        parts = [(tp.topic, tp.partition) for tp in self._consumer.assignment()]
        before = dict(self._feed.applied())
        actual = await self._feed.positions(parts)
        for part in parts:
            lock = self._feed.lock(part)
            if lock.locked() or self._feed.applied().get(part) != before.get(part):
                continue  # it moves; what was read of it is no longer so
            async with lock:
                await self._mend(part, actual[part])

    async def _mend(self, part: TopicPart, actual: int | None) -> None:
        applied = self._feed.applied().get(part)
        mark = self._consumer.thread.marks.get(part)
        if mark is None or actual is None or actual != applied:
            if mark is not None:
                logger.info(
                    "Redis has %s up to %s, not %s; reading on there", part, actual, applied
                )
            self._waiting.pop(part, None)
            await self._feed.replace(part)
        elif mark.handed > actual:
            await self._await_or_repeat(part, actual)
        else:
            self._waiting.pop(part, None)
            after = await self._consumer.thread.skip_holes(part, actual)
            if after is not None:
                await self._feed.skip(part, actual, after)

    async def _await_or_repeat(self, part: TopicPart, actual: int) -> None:
        """Records are on their way to the agent, unless nobody works on them."""
        position, since = self._waiting.get(part, (-1, 0.0))
        if position != actual or self._feed.working(part[0]):
            self._waiting[part] = (actual, time.monotonic())
        elif time.monotonic() - since > LOST_AFTER_S:
            logger.warning("what was read of %s from %d got lost; reading it again", part, actual)
            self._waiting.pop(part)
            await self._feed.replace(part)
