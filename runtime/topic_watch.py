"""Notices that a topic was deleted, or deleted and recreated, while a process reads or writes it.

The client library goes on with a new topic of the same name as if it were the old one. What a process holds
in memory and on its disk is of the old one, so it has to end.
"""

import logging
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from runtime import kafka, topic_admin
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit

logger = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 3.0
GONE_AFTER: Final = 2
"""Checks in a row that do not find a topic: a broker that has just started may not know it yet."""


class TopicWatch:
    """Watches topics from its entering to its leaving; ``check`` often."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        """Raises TopicsMissing, KafkaException."""
        self._topics = topics
        self._client = AdminClient(kafka.admin(settings))
        self._ids = topic_admin.topic_ids(settings, topics)
        self._problem = ""
        self._left = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="topic-watch", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()

    def check(self) -> None:
        """Raises TopicsUnfit when a topic is not the one that it was."""
        if self._problem:
            raise TopicsUnfit(self._problem)

    def _watch(self) -> None:
        gone = 0
        while not self._left.wait(CHECK_EVERY_S) and not self._problem:
            try:
                now = topic_admin.ids_now(self._client, self._topics)
            except KafkaException as error:
                # A broker that is away says nothing about its topics.
                missing = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                gone = gone + 1 if missing else 0
                if gone == GONE_AFTER:
                    self._problem = (
                        f"a topic was deleted while this process ran: {error.args[0].str()}"
                    )
            except TimeoutError:
                gone = 0
            else:
                gone = 0
                self._compare(now)

    def _compare(self, now: dict[str, str]) -> None:
        other = [topic for topic in self._topics if now[topic] != self._ids[topic]]
        if other:
            self._problem = (
                f"deleted and recreated while this process ran: {', '.join(other)}. What this process knows "
                "is of the old topic; `orderflow topics offsets` shows whether commands are lost"
            )
