"""Follows topics as a member of a consumer group, with work outside of Kafka's transactions.

    record -> lane of its key -> work, done for good -> offset

The invariant: an offset is committed when the work of every record before it has ended, and not earlier.
A crash repeats what comes after the committed offset, so the work has to bear repeating.

Any number of processes in one group. The consumer lives on a thread of its own; rebalances come in there
and are carried out on the event loop, where everything else happens. For the roles `payments` and
`webhooks`; knows neither.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from runtime import kafka, watchdog
from runtime.lanes import Place
from runtime.records import IncomingRecord, incoming

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1
MOST_AT_ONCE: Final = 500
COMMIT_EVERY_S: Final = 0.5

T = TypeVar("T")


class Work(Protocol):
    """What becomes of the records: ``runtime.lanes.Lanes`` with a way in."""

    failed: asyncio.Future[None]

    def take(self, source: IncomingRecord) -> None:
        """The next record of its partition."""

    def own(self, places: Iterable[Place]) -> None:
        """As ``Lanes.own``."""

    def drop(self, places: Iterable[Place]) -> None:
        """As ``Lanes.drop``."""

    def drop_all(self) -> None:
        """As ``Lanes.drop_all``."""

    def due(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """As ``Lanes.due``."""

    def committed(self, offsets: dict[Place, int]) -> None:
        """As ``Lanes.committed``."""

    async def settle(self, places: Iterable[Place]) -> None:
        """As ``Lanes.settle``."""


class Starts:
    """Where a partition is begun, and what its commits say beside the offset. This one leaves both to
    the group.
    """

    def begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """May assign the partitions at offsets of its own. On the consumer's thread."""

    def marked(self, place: Place, offset: int) -> TopicPartition:
        """What is committed. On the consumer's thread."""
        return TopicPartition(*place, offset)


class Follower:
    """One process' part of a group. ``run`` once, on one event loop, until it is cancelled or stopped.

    ``full`` says of how much is under way whether no more is to be read: it is asked with whether it was
    full a moment ago, so that it can wait until half of it has ended.
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        topics: Sequence[str],
        work: Work,
        *,
        full: Callable[[bool], bool],
        starts: Starts | None = None,
    ) -> None:
        self._name = name
        self._options = options
        self._topics = list(topics)
        self._work = work
        self._full_again = full
        self._starts = starts or Starts()
        self._loop = asyncio.get_running_loop()
        self._commit_at = 0.0
        self._full = False
        self._pace_changed = False
        self._owned: set[Place] = set()

    async def run(self, stopping: asyncio.Event, *fates: asyncio.Future[None]) -> None:
        """Until stopped; what has ended by then is committed, the rest is cut off and begun again after
        the next start. Raises KafkaException, what the work raised, and what a fate fails with.
        """
        self._consumer = Consumer(self._options)
        self._thread = ThreadPoolExecutor(1, f"{self._name}-consumer")
        try:
            self._consumer.subscribe(
                self._topics,
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            with watchdog.watched(self._name):
                while not stopping.is_set():
                    await self._turn(fates)
            await self._work.settle(self._owned)
            await self._commit()
        finally:
            self._work.drop_all()
            await self._in_thread(self._consumer.close)
            self._thread.shutdown()

    async def _turn(self, fates: Sequence[asyncio.Future[None]]) -> None:
        watchdog.beat(self._name)
        self._set_pace()
        for message in await self._in_thread(self._consume):
            if kafka.is_record(message):
                self._work.take(incoming(message))
        for fate in (self._work.failed, *fates):
            if fate.done():
                fate.result()
        if time.monotonic() >= self._commit_at:
            await self._commit()
            self._commit_at = time.monotonic() + COMMIT_EVERY_S

    def _set_pace(self) -> None:
        full = self._full_again(self._full)
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
        offsets = self._work.due()
        if not offsets:
            return
        stands = await self._in_thread(lambda: self._try_commit(offsets))
        if stands:
            self._work.committed(offsets)

    def _try_commit(self, offsets: dict[Place, int]) -> bool:
        """On the consumer's thread. A commit that fails is made up by the next one, or by repeating."""
        try:
            self._consumer.commit(
                offsets=[self._starts.marked(place, offset) for place, offset in offsets.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            logger.warning("%s: offsets not committed: %s", self._name, error)
            return False
        return True

    # Rebalances, on the consumer's thread inside of ``consume`` and ``close``; the loop waits for it.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._pace_changed = True  # what a rebalance brings is not paused
        self._starts.begin(consumer, partitions)
        self._owned.update(_places(partitions))
        self._on_loop(lambda: self._work.own(_places(partitions)))
        logger.info("%s: assigned: %s", self._name, [at.partition for at in partitions])

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        places = _places(partitions)
        self._owned.difference_update(places)
        asyncio.run_coroutine_threadsafe(self._work.settle(places), self._loop).result()
        offsets = self._on_loop(lambda: self._release(places))
        if offsets:
            self._try_commit(offsets)

    def _release(self, places: list[Place]) -> dict[Place, int]:
        """On the loop: what has ended by now can be committed, the rest is the next owner's."""
        offsets = self._work.due(places)
        self._work.drop(places)
        return offsets

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned.difference_update(_places(partitions))
        self._on_loop(lambda: self._work.drop(_places(partitions)))

    def _on_loop(self, call: Callable[[], T]) -> T:
        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # Shielded: a call that goes on in its thread while nobody waits for it would race with the next.
        return await asyncio.shield(self._loop.run_in_executor(self._thread, call))


def _places(partitions: Iterable[TopicPartition]) -> list[Place]:
    return [(at.topic, at.partition) for at in partitions]
