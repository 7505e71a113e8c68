"""What stands in the topics about webhooks, for the command line: who subscribes, and what became of it.

Reads from outside of every group and keeps nothing: the states are few, and the log of one webhook is on
one partition.
"""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from confluent_kafka.admin import AdminClient

from runtime import kafka
from runtime.reading import read_to_end
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.decoding import DecodeError, decoder
from schemas.partitioner import partition_for
from schemas.topics import WEBHOOK
from schemas.webhook import Delivery
from webhooks.positions import known_offsets
from webhooks.registry import Webhook, webhook_in

logger = logging.getLogger(__name__)

AT_ONCE: Final = 10_000
PATIENCE_S: Final = 30.0

_decode_delivery: Final = decoder(Delivery)


def webhooks(settings: Settings) -> dict[str, Webhook]:
    """Every webhook there is, also those that are deleted. Raises KafkaException and TimeoutError."""
    topic = topics_of(settings).events(WEBHOOK)
    places = [(topic, number) for number in range(settings.partitions)]
    found = {}
    with closing(kafka.new_reader(settings)) as consumer:
        for message in read_to_end(consumer, places, AT_ONCE, PATIENCE_S):
            webhook = webhook_in(message.key(), message.value())
            if webhook is not None:
                found[webhook.id] = webhook
    return dict(sorted(found.items()))


def deliveries(
    settings: Settings, webhook_id: str, limit: int, *, failed: bool = False
) -> list[Delivery]:
    """The newest lines of a webhook's log, oldest first. Raises KafkaException and TimeoutError."""
    found: deque[Delivery] = deque(maxlen=limit)
    for line in _log(settings, webhook_id):
        if not failed or line.error is not None or not 200 <= (line.status or 0) < 300:
            found.append(line)
    return list(found)


def find_events(settings: Settings, webhook_id: str, messages: set[str]) -> dict[str, Delivery]:
    """For each message id that stands in a webhook's log the newest line. Raises as ``deliveries``."""
    return {
        line.message_id: line for line in _log(settings, webhook_id) if line.message_id in messages
    }


def newest_of(settings: Settings, webhook_id: str, aggregate: str, version: int) -> Delivery | None:
    """Return the newest line about an event of the webhook's own, e.g. a test. Raises as ``deliveries``."""
    found = None
    for line in _log(settings, webhook_id):
        if (line.aggregate, line.aggregate_id, line.version) == (aggregate, webhook_id, version):
            found = line
    return found


def waiting(settings: Settings, webhook: Webhook) -> int | None:
    """How many offsets lie before the ends of what it follows; None before it has begun.

    Raises KafkaException. Not each of them is an event that it wants.
    """
    topics = topics_of(settings)
    places = [
        (topics.history(name), number)
        for name in webhook.state.since
        for number in range(settings.partitions)
    ]
    stands = known_offsets(settings, webhook, places)
    if any(place not in stands for place in places):
        return None
    ends = kafka.end_offsets(AdminClient(kafka.admin(settings)), places, PATIENCE_S)
    return sum(ends.values()) - sum(stands.values())


def _log(settings: Settings, webhook_id: str) -> Iterator[Delivery]:
    topic, key = topics_of(settings).webhook_deliveries, webhook_id.encode()
    place = topic, partition_for(key, settings.partitions)
    with closing(kafka.new_reader(settings)) as consumer:
        for message in read_to_end(consumer, [place], AT_ONCE, PATIENCE_S):
            value = message.value()
            if message.key() == key and value is not None:
                try:
                    line = _decode_delivery(value)
                except DecodeError as error:
                    logger.warning("line %s of the log cannot be read: %s", message.offset(), error)
                    continue
                yield line
