"""Finds the records of single aggregates in a compacted topic: their one partition is read, no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, Message

from readmodels.positions import TopicPart
from readmodels.records import UNREADABLE_HEADERS, Change, Headers, Unreadable
from readmodels.records import read as read_record
from readmodels.views import View
from runtime import kafka, reading
from runtime.reading import BATCH
from runtime.records import headers_of as read_headers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for


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
) -> Iterator[Raw]:
    """As ``runtime.reading.read_to_end``."""
    return map(_raw, reading.read_to_end(consumer, parts, most))


def read_between(
    consumer: Consumer,
    starts: Mapping[TopicPart, int],
    ends: Mapping[TopicPart, int],
    most: int = BATCH,
) -> Iterator[Raw]:
    """As ``runtime.reading.read_between``."""
    return map(_raw, reading.read_between(consumer, starts, ends, most))


def headers_of(message: Message) -> Headers:
    """Return the headers of a message; UNREADABLE_HEADERS if a name among them is not UTF-8."""
    found: Any = read_headers(message)
    return UNREADABLE_HEADERS if found is None else cast("Headers", found)


def _raw(message: Message) -> Raw:
    part = str(message.topic()), int(message.partition() or 0)
    key: Any = message.key()
    value: Any = message.value()
    return Raw(part, int(message.offset() or 0), key, value, headers_of(message))
