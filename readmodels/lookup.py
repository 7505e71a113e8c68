"""Finds the records of single aggregates in a compacted topic: their one partition is read, no other.

A plain consumer without a group reads each partition from its first offset until the broker says that there
is no more, as markers of transactions and compacted records leave holes at the end; or, on a topic that never
rests, until a record comes that was not there yet when the reading began.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from readmodels.positions import TopicPart
from readmodels.records import Change, Unreadable
from readmodels.records import read as read_record
from readmodels.views import View
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for

BATCH: Final = 4_000
POLL_S: Final = 0.2
STALLED_S: Final = 60.0
WATERMARKS_S: Final = 30.0


class Raw(NamedTuple):
    """One record as it stands on the topic."""

    part: TopicPart
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Any


@dataclass(frozen=True, slots=True)
class Found:
    """A readable record of an aggregate: what it makes of a view, and where it stands."""

    offset: int
    change: Change[Any]


class NoEnd(TimeoutError):
    """A partition could not be read to its end in time; is the broker up?"""


def partition_of(settings: Settings, view: View, aggregate_id: str) -> TopicPart:
    """Where all records of an aggregate stand."""
    topic = topics_of(settings).events(view.aggregate)
    return topic, partition_for(aggregate_id.encode(), settings.partitions)


def look_up(
    settings: Settings, view: View, ids: Collection[str], consumer: Consumer | None = None
) -> dict[str, tuple[Found, ...]]:
    """Aggregate id → its readable records that the topic still has, in order; none: an empty tuple.

    Everything that was committed when this was called is seen. Raises NoEnd, KafkaException.
    """
    wanted = {identity.encode(): identity for identity in ids}
    found: dict[str, list[Found]] = {identity: [] for identity in ids}
    own = consumer or kafka.new_reader(settings)
    try:
        for raw in read_to_end(own, {partition_of(settings, view, one) for one in ids}):
            identity = wanted.get(raw.key or b"")
            if identity is None:
                continue
            try:
                change = read_record(raw.key, raw.value, raw.headers, view.states, view.project)
            except Unreadable:
                continue  # the view stays as it was before it
            if change is not None:
                found[identity].append(Found(raw.offset, change))
    finally:
        if consumer is None:
            own.close()
    return {identity: tuple(records) for identity, records in found.items()}


def read_to_end(
    consumer: Consumer, parts: Collection[TopicPart], most: int = BATCH
) -> Iterable[Raw]:
    """Every record of these partitions that was committed when this was called, each partition in order.

    Raises NoEnd, KafkaException.
    """
    ends = {
        part: kafka.watermarks(consumer, TopicPartition(*part), WATERMARKS_S)[1] for part in parts
    }
    return read_between(consumer, dict.fromkeys(parts, OFFSET_BEGINNING), ends, most)


def read_between(
    consumer: Consumer,
    starts: Mapping[TopicPart, int],
    ends: Mapping[TopicPart, int],
    most: int = BATCH,
) -> Iterable[Raw]:
    """Every committed record from these offsets on and before those; each partition in order.

    At an end of its own, a partition ends between two transactions: of one that is still open, and what
    lies behind it, nothing is seen. Raises NoEnd, KafkaException.
    """
    left = {part for part, at in starts.items() if at < ends[part]}
    consumer.assign([TopicPartition(*part, starts[part]) for part in left])
    moved_at = time.monotonic()
    while left:
        messages = kafka.what_came(consumer, most, POLL_S)
        if messages:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALLED_S:
            raise NoEnd(NoEnd.__doc__)
        for message in messages:
            part = (str(message.topic()), int(message.partition() or 0))
            error, offset = message.error(), int(message.offset() or 0)
            if part not in left:
                continue
            if error is None and offset < ends[part]:
                key: Any = message.key()
                value: Any = message.value()
                yield Raw(part, offset, key, value, message.headers())
            if error is None:
                if offset + 1 >= ends[part]:
                    left.discard(part)
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(part)
            elif not kafka.is_transient(error):
                raise KafkaException(error)
    consumer.unassign()
