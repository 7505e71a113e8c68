"""Reads partitions from their beginning, or between two offsets, and stops.

Two things end a partition: the broker says that there is no more, as markers of transactions and compacted
records leave holes at the end; or, where it is written all the time, a record comes that was not there yet
when the reading began.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from runtime import kafka
from runtime.lanes import Place

BATCH: Final = 4_000
POLL_S: Final = 0.2
STABLE_POLL_S: Final = 0.01
PATIENCE_S: Final = 60.0
WATERMARKS_S: Final = 30.0


class NoEnd(TimeoutError):
    """A partition could not be read to its end in time; is the broker up?"""


def read_to_end(
    consumer: Consumer,
    places: Collection[Place],
    most: int = BATCH,
    patience_s: float = PATIENCE_S,
) -> Iterator[Message]:
    """Every record of these partitions that could be read when this was called, each partition in order.

    ``consumer``: of ``kafka.new_reader``. ``most``: at once. Raises NoEnd when nothing came for so many
    seconds, KafkaException.
    """
    ends = {place: _stable_end(consumer, place) for place in places}
    return read_between(consumer, dict.fromkeys(places, OFFSET_BEGINNING), ends, most, patience_s)


def wait_until_stable(
    consumer: Consumer, ends: Mapping[Place, int], patience_s: float = PATIENCE_S
) -> None:
    """Until what lies before these offsets (``kafka.end_offsets``) is committed or aborted, and can be read.

    A transaction that was just committed is hidden until its markers are written.

    Raises NoEnd, KafkaException.
    """
    until = time.monotonic() + patience_s
    for place, end in ends.items():
        while _stable_end(consumer, place) < end:
            if time.monotonic() > until:
                raise NoEnd(NoEnd.__doc__)
            time.sleep(STABLE_POLL_S)


def _stable_end(consumer: Consumer, place: Place) -> int:
    return kafka.watermarks(consumer, TopicPartition(*place), WATERMARKS_S)[1]


def read_between(
    consumer: Consumer,
    starts: Mapping[Place, int],
    ends: Mapping[Place, int],
    most: int = BATCH,
    patience_s: float = PATIENCE_S,
) -> Iterator[Message]:
    """Every committed record from these offsets on and before those; each partition in order.

    At an end of its own, a partition ends between two transactions: of one that is still open, and what
    lies behind it, nothing is seen. Raises as ``read_to_end``.
    """
    left = {place for place, at in starts.items() if at < ends[place]}
    consumer.assign([TopicPartition(*place, starts[place]) for place in left])
    moved_at = time.monotonic()
    while left:
        messages = kafka.what_came(consumer, most, POLL_S)
        if messages:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > patience_s:
            raise NoEnd(NoEnd.__doc__)
        for message in messages:
            place = message.topic() or "", message.partition() or 0
            error, offset = message.error(), message.offset() or 0
            if place not in left:
                continue
            if error is None:
                if offset < ends[place]:
                    yield message
                if offset + 1 >= ends[place]:
                    left.discard(place)
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(place)
            elif not kafka.is_transient(error):
                raise KafkaException(error)
    consumer.unassign()
