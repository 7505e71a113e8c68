"""The keys of personal data, as the compacted topics have them now; who is forgotten has none.

A key stands in its aggregate's newest record, so they are found by reading such a topic from its beginning,
once, and on from there before each use: what was forgotten before a reading began is not shown by it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore.progress import Watch
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.ids import is_id
from schemas.personal import key_in
from schemas.topics import PERSONAL

logger = logging.getLogger(__name__)

BATCH: Final = 5_000
POLL_S: Final = 0.1
CALL_S: Final = 10.0


class KeysStalled(RuntimeError):
    """The keys of personal data could not be read up to the end of their topic and nothing moved for a
    minute: a transaction hangs open (`kafka-transactions.sh find-hanging`), or a broker is gone.
    """


class Keys(Protocol):
    """What opens sealed events."""

    def key_of(self, aggregate: str, aggregate_id: str) -> bytes | None:
        """None: forgotten, or nothing of it was ever sealed."""


class _NoKeys:
    """Opens nothing: all is shown as if it were forgotten."""

    def key_of(self, aggregate: str, aggregate_id: str) -> bytes | None:
        """None."""
        return None


NO_KEYS: Final = _NoKeys()


class KeyReader:
    """Reads them from Kafka. Not to be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = topics_of(settings)
        self._admin: AdminClient | None = None
        self._consumers: dict[tuple[str, int], Consumer] = {}
        self._at: dict[tuple[str, int], int] = {}
        self._found: dict[tuple[str, str], bytes] = {}

    def close(self) -> None:
        """Closes its connections."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def key_of(self, aggregate: str, aggregate_id: str) -> bytes | None:
        """As of the last ``refresh`` of its partition."""
        return self._found.get((aggregate, aggregate_id))

    def refresh(self, places: Iterable[tuple[str, int]]) -> None:
        """Reads the keys of these aggregates' partitions up to the high watermark of this moment, so all
        that belong to an event that has been seen. Raises KeysStalled, KafkaException.
        """
        wanted = {
            (aggregate, number): (self._topics.events(aggregate), number)
            for aggregate, number in places
            if aggregate in PERSONAL
        }
        if not wanted:
            return
        self._admin = self._admin or AdminClient(kafka.admin(self._settings))
        targets = kafka.end_offsets(self._admin, list(wanted.values()), CALL_S)
        for (aggregate, _), at in wanted.items():
            self._read_to(aggregate, at, targets[at])

    def _read_to(self, aggregate: str, at: tuple[str, int], target: int) -> None:
        self._at.setdefault(at, 0)
        if self._at[at] >= target:
            return
        consumer = self._consumer(at)
        watch = Watch(self._at[at], target, KeysStalled, None)
        while self._at[at] < target:
            messages = kafka.what_came(consumer, BATCH, POLL_S)
            for message in messages:
                error, offset = message.error(), int(message.offset() or 0)
                if error is None:
                    self._note(aggregate, message.key(), message.value())
                    self._at[at] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._at[at] = max(self._at[at], offset)
                elif not kafka.is_transient(error):
                    raise KafkaException(error)
            watch.moved(self._at[at], len(messages))

    def _consumer(self, at: tuple[str, int]) -> Consumer:
        if at not in self._consumers:
            consumer = kafka.new_reader(self._settings)
            consumer.assign([TopicPartition(*at, OFFSET_BEGINNING)])
            self._consumers[at] = consumer
        return self._consumers[at]

    def _note(self, aggregate: str, key: object, value: object) -> None:
        """Keep the key of the newest record that can be read; a deletion ends it. Never raises."""
        identity = key.decode(errors="replace") if isinstance(key, bytes) else ""
        if not is_id(identity):
            return
        try:
            found = key_in(value) if isinstance(value, bytes) else None
        except (msgspec.DecodeError, ValueError) as error:
            logger.warning("a record of %s %s cannot be read: %s", aggregate, identity, error)
            return
        if found is None:
            self._found.pop((aggregate, identity), None)
        else:
            self._found[aggregate, identity] = found
