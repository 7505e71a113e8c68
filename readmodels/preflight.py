"""What has to be so before a view is fed; otherwise a refusal that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from readmodels import positions
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.steps import drive
from readmodels.views import View, by_topic
from runtime import kafka, topic_admin
from runtime.redis import EVICTION_REMEDY, Line, is_cluster, new_line, redis_health
from runtime.settings import Settings

ANSWER_WITHIN_S: Final = 30.0


class Refused(RuntimeError):
    """The views cannot be fed as things are; the message says why and what to do."""


def check(settings: Settings, views: Sequence[View]) -> dict[str, str]:
    """The topics are as they should be and those that the views were made from, Redis evicts nothing, and
    each position lies within its partition. Returns the id of each events topic.

    Raises Refused, topic_admin.TopicsUnfit, KafkaException or RedisError.
    """
    topic_admin.require(settings)
    topics = topic_admin.topics_of(settings)
    ids = topic_admin.topic_ids(settings, list(by_topic(topics, views)))
    line, spread = new_line(settings), is_cluster(settings)
    try:
        _check_eviction(line)
        live = drive(line, positions.live(settings.topic_prefix, views))
        keys = [Keys(settings.topic_prefix, view.name, live[view.name], spread) for view in views]
        stored = drive(line, positions.read(keys))
        for view, own in zip(views, keys, strict=True):
            topic = topics.events(view.aggregate)
            claimed = drive(line, positions.claim(own, {topic: ids[topic]}))
            _check_topic(view, topic, claimed[topic], ids[topic])
    finally:
        line.close()
    ends = watermarks(settings, views)
    for view, of_view in zip(views, stored, strict=True):
        for part, at in of_view.items():
            _check_position(view, part, at, ends)
    return ids


def watermarks(settings: Settings, views: Sequence[View]) -> dict[TopicPart, tuple[int, int]]:
    """Partition → first offset and the one after the last, of all events topics of the views.

    Raises KafkaException, also when a topic does not exist.
    """
    topics = topic_admin.topics_of(settings)
    consumer = Consumer(kafka.reader(settings))
    try:
        found: dict[TopicPart, tuple[int, int]] = {}
        for topic in by_topic(topics, views):
            for number in range(settings.partitions):
                found[topic, number] = kafka.watermarks(
                    consumer, TopicPartition(topic, number), ANSWER_WITHIN_S
                )
        return found
    finally:
        consumer.close()


def _check_eviction(line: Line) -> None:
    """A view with holes is worse than none: nobody notices."""
    evicting = {server.policy for server in redis_health(line) if server.evicts}
    if evicting:
        raise Refused(
            f"Redis has the eviction policy {', '.join(sorted(evicting))}: when memory is short it would"
            f" throw rows of the views away, and nobody would notice. {EVICTION_REMEDY}"
        )


def _check_topic(view: View, topic: str, claimed: str, actual: str) -> None:
    if claimed != actual:
        raise Refused(
            f"the view {view.name} was made from another {topic} than there is now: the topic was deleted"
            f" and made anew, or this Redis belongs to another cluster. {_WAY_OUT}"
        )


def _check_position(
    view: View, part: TopicPart, at: int, ends: Mapping[TopicPart, tuple[int, int]]
) -> None:
    name = positions.field(part)
    if part not in ends:
        raise Refused(
            f"the view {view.name} has a position for {name}, a partition that its topic does not have."
            f" {_WAY_OUT}"
        )
    low, high = ends[part]
    if at > high:
        raise Refused(
            f"the view {view.name} stands at {at} of {name}, which ends at {high}: the topic was deleted"
            f" and made anew, or this Redis belongs to another cluster. {_WAY_OUT}"
        )
    if at < low:
        raise Refused(
            f"the view {view.name} stands at {at} of {name}, which begins at {low}: records that it has"
            f" not seen were deleted. {_WAY_OUT}"
        )


_WAY_OUT: Final = "Make the views anew with `orderflow rebuild`."
