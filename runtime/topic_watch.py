"""Notice that a topic was deleted, or deleted and recreated, while a role works on it.

The new topic has the old name and other records: offsets that a role remembers mean something else there, and
the client library goes on as if nothing had happened. The broker gives every topic an id, so the id is asked
for every few seconds. Every role may use this.

Invariant: ``look`` never waits for the broker. It takes in the answers to the last question, and asks again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit, topic_ids

INTERVAL_S: Final = 2.0
"""One small question to one broker."""

GONE_AFTER: Final = 2
"""Answers in a row that do not know a topic: a broker that has just started may not know it yet."""


class TopicsRecreated(TopicsUnfit):
    """A topic was deleted and recreated while this role worked on it. Start the role again: what it does
    first says what has to be done. `orderflow topics offsets` shows whether commands are lost.
    """


class TopicsDeleted(TopicsUnfit):
    """A topic was deleted while this role worked on it. `orderflow topics apply` creates it again."""


class TopicWatch:
    """``ids``: topic → the broker's id of it, as `topic_admin.topic_ids` gives them. Not thread-safe."""

    def __init__(
        self, settings: Settings, ids: Mapping[str, str], interval_s: float = INTERVAL_S
    ) -> None:
        self._ids = dict(ids)
        self._interval_s = interval_s
        self._client = AdminClient(kafka.admin(settings) | {"log_level": 0})
        self._asked: dict[str, Future[Any]] = {}
        self._asked_at = 0.0
        self._unknown: Counter[str] = Counter()

    @classmethod
    def of(cls, settings: Settings, topics: Sequence[str]) -> Self:
        """Watch the topics as they are now. Raises TopicsMissing, KafkaException."""
        return cls(settings, topic_ids(settings, topics))

    def look(self) -> None:
        """Raise TopicsRecreated if the last answers name another id for a topic, and TopicsDeleted if it is
        not known any more. A broker that is away says nothing: the next answer may.
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
        except KafkaException as error:
            unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            self._unknown[topic] = self._unknown[topic] + 1 if unknown else 0
            if self._unknown[topic] >= GONE_AFTER:
                raise TopicsDeleted(f"{topic}: {TopicsDeleted.__doc__}") from None
            return
        self._unknown[topic] = 0
        if found != self._ids[topic]:
            raise TopicsRecreated(f"{topic}: {TopicsRecreated.__doc__}")
