"""Reading histories on from a position: to the end there is now (replay), or for ever (subscription)."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore.events import Position, RecordedEvent, position_of, recorded
from eventstore.indexer import is_event
from eventstore.keys import KeyReader
from eventstore.progress import OnProgress, Watch
from runtime import kafka
from runtime.records import IncomingRecord, incoming
from runtime.settings import Settings
from runtime.topic_admin import topics_of

logger = logging.getLogger(__name__)

BATCH: Final = 1_000
POLL_S: Final = 0.1
CALL_S: Final = 10.0


class ReplayStalled(RuntimeError):
    """A replay did not reach the end and nothing moved for a minute: a transaction hangs open
    (`kafka-transactions.sh find-hanging`), or a broker is gone.
    """


class Subscription:
    """The events of some aggregates from a position on; iterate over it, and close it.

    Within an aggregate events come in order of version, between aggregates in any order. ``position`` covers
    what was handed out: kept together with what a reader made of it, it is where that reader goes on.
    Only committed events come. Not to be shared between threads.
    """

    def __init__(
        self,
        settings: Settings,
        aggregates: Sequence[str],
        start: Position,
        patience_s: float | None,
    ) -> None:
        named = topics_of(settings)
        self._aggregate_of = {named.history(aggregate): aggregate for aggregate in aggregates}
        self._admin = AdminClient(kafka.admin(settings))
        places = [(t, p) for t in self._aggregate_of for p in range(settings.partitions)]
        first = kafka.first_offsets(self._admin, places, CALL_S)
        self._at = {place: max(start.at(*place), first[place]) for place in places}
        self._patience_s = patience_s
        self._closed = False
        self._waiting: deque[Message] = deque()
        self._keys = KeyReader(settings)
        self._consumer = kafka.new_reader(settings)
        self._consumer.assign([TopicPartition(*place, at) for place, at in self._at.items()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def position(self) -> Position:
        """After the last event that was handed out, and the holes that follow it."""
        return position_of(self._at.items())

    def close(self) -> None:
        """Ends the iteration. May be called from another thread."""
        self._closed = True

    def __iter__(self) -> Iterator[RecordedEvent]:
        """Events until it is closed, or until none came for its patience.

        Raises KafkaException, KeysStalled; UnreadableEvent for one of a newer release. ``position`` is then
        behind it.
        """
        quiet_since = time.monotonic()
        try:
            while not self._closed:
                event = self._next()
                if event is not None:
                    quiet_since = time.monotonic()
                    yield event
                elif self._is_over(quiet_since):
                    return
        finally:
            self._consumer.close()
            self._keys.close()

    def to_the_end(self, on_progress: OnProgress | None = None) -> Iterator[RecordedEvent]:
        """Events up to the high watermark of this moment.

        Raises ReplayStalled, KeysStalled, KafkaException, UnreadableEvent.
        """
        targets = kafka.end_offsets(self._admin, self._at, CALL_S)
        watch = Watch(sum(self._at.values()), sum(targets.values()), ReplayStalled, on_progress)
        try:
            while any(self._at[at] < target for at, target in targets.items()):
                event = self._next()
                watch.moved(sum(self._at.values()), event is not None)
                if event is not None:
                    yield event
            watch.done()
        finally:
            self._consumer.close()
            self._keys.close()

    def _is_over(self, quiet_since: float) -> bool:
        return self._patience_s is not None and time.monotonic() - quiet_since > self._patience_s

    def _next(self) -> RecordedEvent | None:
        """The next event that is there; None when none came for a moment."""
        if not self._waiting:
            self._waiting.extend(kafka.what_came(self._consumer, BATCH, POLL_S))
            came = {
                (str(m.topic()), int(m.partition() or 0)) for m in self._waiting if not m.error()
            }
            self._keys.refresh((self._aggregate_of[topic], number) for topic, number in came)
        while self._waiting:
            message = self._waiting.popleft()
            place = str(message.topic()), int(message.partition() or 0)
            error, offset = message.error(), int(message.offset() or 0)
            if error is None:
                self._at[place] = offset + 1
                event = self._event(self._aggregate_of[place[0]], incoming(message))
                if event is not None:
                    return event
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                self._at[place] = max(self._at[place], offset)
            elif not kafka.is_transient(error):
                raise KafkaException(error)
        return None

    def _event(self, aggregate: str, record: IncomingRecord) -> RecordedEvent | None:
        """The event; None for a record that is none: the index leaves it out, too."""
        if not is_event(record):
            place = f"{record.topic}-{record.partition}@{record.offset}"
            logger.warning("%s is no event of a stream: passed over", place)
            return None
        return recorded(aggregate, record, self._keys)
