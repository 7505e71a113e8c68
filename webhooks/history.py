"""What happens, read once for all webhooks: one consumer a process, whatever the number of webhooks.

The processes share the partitions of the history as one group, in which nothing is committed: each webhook
has positions of its own (`webhooks.positions`), which the owner of a partition keeps. The consumer begins at
the end of a partition and never waits; a webhook that needs what lies before reads it by itself
(`webhooks.catching_up`), until what the consumer reads next is what it needs.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from runtime import kafka
from runtime.follower import Follower, Starts
from runtime.lanes import Place
from runtime.records import IncomingRecord
from webhooks.course import Tools, event_of, share_bytes
from webhooks.positions import Positions
from webhooks.registry import Webhook
from webhooks.subscriber import Start, Subscriber

logger = logging.getLogger(__name__)

END_WITHIN_S: Final = 30.0
KEEP_EVERY_S: Final = 0.5
"""How often positions are committed where something was delivered; so much a crash repeats."""

KEPT_A_SECOND: Final = 50
"""How many webhooks' positions are committed in a second; with more webhooks, each less often. A commit is
a write of the broker's, which has other work.
"""

KEEP_PASSED_EVERY_S: Final = 30.0
"""How often where events only passed by: passing by again costs nothing."""

KEEP_ALIVE_EVERY_S: Final = 3_600.0
"""How often positions are committed that have not changed, so that they do not expire."""

SETTLE_WITHIN_S: Final = 5.0
"""How long a rebalance waits for positions to be committed before a partition is another process'."""


class _FromTheEnd(Starts):
    """Every partition begins at the end that may be read at that time."""

    def __init__(self) -> None:
        self.ends: dict[Place, int] = {}

    def begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """On the consumer's thread. Raises KafkaException."""
        for at in partitions:
            _, self.ends[at.topic, at.partition] = kafka.watermarks(consumer, at, END_WITHIN_S)
        consumer.incremental_assign(
            [
                TopicPartition(at.topic, at.partition, self.ends[at.topic, at.partition])
                for at in partitions
            ]
        )


class History:
    """The work of `runtime.follower`: hands each event to every webhook that is in step."""

    def __init__(self, tools: Tools, positions: Positions, start: Start) -> None:
        self._tools = tools
        self._positions = positions
        self._start = start
        self._starts = _FromTheEnd()
        self._subscribers: dict[str, Subscriber] = {}
        self._reached: dict[Place, int] = {}
        self._topics: set[str] = set()
        self._more_topics = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def change(self, webhook: Webhook, *, deleted: bool) -> None:
        """The newest state of a webhook."""
        known = self._subscribers.get(webhook.id)
        if deleted:
            if known is not None:
                self._subscribers.pop(webhook.id).stop()
            return
        if known is None:
            self._subscribers[webhook.id] = known = Subscriber(
                webhook,
                self._tools,
                self._positions,
                reached=self._reached.get,
                share=lambda: share_bytes(len(self._subscribers)),
                start=self._start,
            )
            known.own(self._reached)
        else:
            known.update(webhook)
        if not known.topics <= self._topics:
            self._topics |= known.topics
            self._more_topics.set()

    async def run(self, stopping: asyncio.Event, broken: asyncio.Future[None]) -> None:
        """Until stopped; then every position is kept. Raises KafkaException."""
        stop = asyncio.create_task(stopping.wait())
        keeping = asyncio.create_task(self._keep_positions())
        try:
            while not stopping.is_set():
                self._more_topics.clear()
                if self._topics:
                    await self._follower().run(self._pause_for(stop), broken, keeping)
                else:
                    more = asyncio.create_task(self._more_topics.wait())
                    await asyncio.wait({stop, more}, return_when=asyncio.FIRST_COMPLETED)
                    more.cancel()
        finally:
            keeping.cancel()
            stop.cancel()
            for subscriber in self._subscribers.values():
                subscriber.stop()

    def _pause_for(self, stop: asyncio.Task[bool]) -> asyncio.Event:
        """Set when the role stops or when there are topics that the consumer does not read yet."""
        stop.add_done_callback(lambda _: self._more_topics.set())
        return self._more_topics

    def _follower(self) -> Follower:
        settings = self._tools.settings
        group = f"{settings.topic_prefix}.webhook-deliveries"
        return Follower(
            "webhooks-history",
            kafka.group_consumer(settings, group),
            sorted(self._topics),
            self,
            full=lambda _: False,
            starts=self._starts,
        )

    # What the consumer reads

    def take(self, source: IncomingRecord) -> None:
        """The next record of its partition."""
        place = source.topic, source.partition
        if place not in self._reached:
            return
        in_step = [each for each in self._subscribers.values() if each.is_in_step(place)]
        self._reached[place] = source.offset + 1
        if in_step:
            event = event_of(source, self._tools.aggregates[source.topic])
            for subscriber in in_step:
                subscriber.offer(event)

    def own(self, places: Iterable[Place]) -> None:
        """These partitions are this process'."""
        new = list(places)
        self._reached |= {place: self._starts.ends[place] for place in new}
        for subscriber in self._subscribers.values():
            subscriber.own(new)

    def drop(self, places: Iterable[Place]) -> None:
        """They are another's."""
        places = list(places)
        for place in places:
            self._reached.pop(place, None)
        for subscriber in self._subscribers.values():
            subscriber.drop(places)

    def drop_all(self) -> None:
        """As ``drop``, of every partition."""
        self.drop(list(self._reached))

    def due(self, _places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Nothing: the group has no positions."""
        return {}

    def committed(self, offsets: dict[Place, int]) -> None:
        """As nothing is due, nothing is committed."""

    # What the webhooks have reached

    async def settle(self, _places: Iterable[Place]) -> None:
        """Keep all positions before partitions are another's; late ones are made up by repeating."""
        try:
            async with asyncio.timeout(SETTLE_WITHIN_S):
                await asyncio.gather(*(each.keep() for each in self._subscribers.values()))
        except TimeoutError:
            logger.warning("positions are not all committed: some deliveries will be repeated")

    async def _keep_positions(self) -> None:
        passed_at = alive_at = time.monotonic()
        pause_s = KEEP_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            now = time.monotonic()
            passed = now - passed_at >= KEEP_PASSED_EVERY_S
            alive = now - alive_at >= KEEP_ALIVE_EVERY_S
            passed_at = now if passed else passed_at
            alive_at = now if alive else alive_at
            due = [each for each in self._subscribers.values() if passed or each.has_delivered]
            if alive:
                due = list(self._subscribers.values())
            kept = await asyncio.gather(*(each.keep(all_of_it=alive) for each in due))
            pause_s = max(KEEP_EVERY_S, sum(kept) / KEPT_A_SECOND)
