"""Notice that a topic was deleted and made anew while a role works on it.

The new topic has the old name and other records: offsets that a role remembers mean something else there. The
broker gives every topic an id, so the id is asked for every few seconds. Every role may use this.

Invariant: ``look`` never waits for the broker. It takes in the answers to the last question, and asks again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit

INTERVAL_S: Final = 2.0
"""One small question to one broker."""


class TopicsMadeAnew(TopicsUnfit):
    """A topic was deleted and made anew while this role worked on it. Start the role again: what it does
    first says what has to be done.
    """


class TopicIdentity:
    """``ids``: topic → the broker's id of it, as `topic_admin.topic_ids` gives them. Not thread-safe."""

    def __init__(
        self, settings: Settings, ids: Mapping[str, str], interval_s: float = INTERVAL_S
    ) -> None:
        self._ids = dict(ids)
        self._interval_s = interval_s
        self._client = AdminClient(kafka.admin(settings) | {"log_level": 0})
        self._asked: dict[str, Future[Any]] = {}
        self._asked_at = 0.0

    def look(self) -> None:
        """Raise TopicsMadeAnew if the last answers name another id for a topic.

        A topic that is not there, or a broker that is away, says nothing: the next answer may.
        """
        if self._asked and all(one.done() for one in self._asked.values()):
            asked, self._asked = self._asked, {}
            for topic, future in asked.items():
                self._compare(topic, future)
        if not self._asked and time.monotonic() - self._asked_at >= self._interval_s:
            self._asked_at = time.monotonic()
            self._asked = self._client.describe_topics(TopicCollection(list(self._ids)))

    def _compare(self, topic: str, future: Future[Any]) -> None:
        try:
            found = str(future.result().topic_id)
        except KafkaException:
            return
        if found != self._ids[topic]:
            raise TopicsMadeAnew(f"{topic}: {TopicsMadeAnew.__doc__}")
