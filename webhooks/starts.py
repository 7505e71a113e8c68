"""Where a webhook begins to read, for good.

A subscription says since when it follows an aggregate. That becomes an offset when its group reads a
partition for the first time, and is committed at once, with the promise (``since``) beside it; from then
on the offset alone counts. An offset with another promise beside it belongs to an earlier time in which
the aggregate was followed, before it was left out and named again: it is not this one's.
"""

import logging
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime import kafka
from runtime.follower import Starts
from runtime.lanes import Place
from runtime.settings import Settings

logger = logging.getLogger(__name__)

CALL_S: Final = 10.0


class Since(Starts):
    """``since``: for each topic, epoch milliseconds; 0 is its beginning."""

    def __init__(self, settings: Settings, since: Mapping[str, int]) -> None:
        self._settings = settings
        self._since = since

    def marked(self, place: Place, offset: int) -> TopicPartition:
        """An offset, with the promise under which it was reached."""
        return TopicPartition(*place, offset, str(self._since[place[0]]))

    def begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Where it stood, or where it has to begin. Raises KafkaException."""
        known = kafka.until_answered(lambda: consumer.committed(partitions, CALL_S), 3 * CALL_S)
        found = {(at.topic, at.partition): at.offset for at in known if self._is_ours(at)}
        new = [place for at in known if (place := (at.topic, at.partition)) not in found]
        if new:
            found |= self._first_offsets(new)
            self._keep(consumer, {place: found[place] for place in new})
        consumer.incremental_assign(
            [TopicPartition(*place, offset) for place, offset in found.items()]
        )

    def _is_ours(self, at: TopicPartition) -> bool:
        return at.offset >= 0 and at.metadata == str(self._since[at.topic])

    def _first_offsets(self, places: list[Place]) -> dict[Place, int]:
        ends = self._offsets({place: OffsetSpec.latest() for place in places})
        # Asked after the end: what is written in between has been found by one of the two.
        from_then_on = self._offsets(
            {
                place: OffsetSpec.for_timestamp(since) if since else OffsetSpec.earliest()
                for place in places
                for since in (self._since[place[0]],)
            }
        )
        # None of that time yet: then from the end on.
        return {
            place: offset if offset >= 0 else ends[place] for place, offset in from_then_on.items()
        }

    def _offsets(self, wanted: dict[Place, OffsetSpec]) -> dict[Place, int]:
        # Committed ones: the end is in front of a transaction that is still open, not behind it.
        admin = AdminClient(kafka.admin(self._settings))

        def ask() -> dict[Place, int]:
            answers = admin.list_offsets(
                {TopicPartition(*place): spec for place, spec in wanted.items()},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=CALL_S,
            )
            return {
                (at.topic, at.partition): answer.result().offset for at, answer in answers.items()
            }

        return kafka.until_answered(ask, 3 * CALL_S)

    def _keep(self, consumer: Consumer, offsets: dict[Place, int]) -> None:
        try:
            consumer.commit(
                offsets=[self.marked(place, offset) for place, offset in offsets.items()],
                asynchronous=False,
            )
        except (
            KafkaException
        ) as error:  # the next one to be given the partition finds out by itself
            logger.warning("first offsets not committed: %s", error)
