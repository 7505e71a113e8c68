"""Looks records up in the index and fetches them from Kafka; brings the index up to date first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from confluent_kafka.admin import AdminClient

from eventstore import index
from eventstore.events import (
    IndexIncomplete,
    RecordedEvent,
    StreamId,
    UnreadableEvent,
    VersionNotFound,
    recorded,
    unreadable,
)
from eventstore.fetching import Fetcher
from eventstore.index import ENTRY_BYTES, IndexKeys, Place, epoch_key
from eventstore.indexer import Indexer, Kind, Source
from eventstore.keys import KeyReader
from eventstore.progress import OnProgress
from runtime import kafka
from runtime.records import IncomingRecord
from runtime.redis import Command, Reply, pooled
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.partitioner import partition_for

PAGE: Final = 512
"""Events of a stream whose places are looked up at once."""


class Reader:
    """Not to be shared between threads. All raise KafkaException, RedisError, IndexStalled, KeysStalled."""

    def __init__(self, settings: Settings, on_progress: OnProgress | None) -> None:
        self._topics = topics_of(settings)
        self._on_progress = on_progress
        self._indexer = Indexer(settings)
        self._fetcher = Fetcher(settings)
        self.keys = KeyReader(settings)
        self._admin = AdminClient(kafka.admin(settings))
        self._epoch_key = epoch_key(settings.topic_prefix)
        self._redis = pooled(settings, text=False)

    def close(self) -> None:
        """Closes its connections."""
        self._fetcher.close()
        self.keys.close()
        self._indexer.close()
        self._redis.close()

    def version(self, stream: StreamId) -> int:
        """Of the last event; 0 where there is none."""
        topic, partition = self._history(stream)
        (length,) = self._ask(
            [(topic, partition)], lambda: [("STRLEN", self._stream_key(topic, stream))]
        )
        return int(length) // ENTRY_BYTES

    def events(
        self, stream: StreamId, first: int, last: int | None, *, leniently: bool = False
    ) -> Iterator[RecordedEvent]:
        """Versions ``first`` to ``last``, both included; to the end for None. ``leniently``: an event that
        cannot be read comes with the reason, in its place.

        Raises HistoryIncomplete, IndexIncomplete, UnreadableEvent, VersionNotFound for versions that cannot
        be.
        """
        if first < 1 or (last is not None and last < first):
            raise VersionNotFound(f"versions count from 1; {first} to {last} are none")
        topic, partition = self._history(stream)
        while last is None or first <= last:
            found = self._offsets(stream, first, min(last or first + PAGE, first + PAGE - 1))
            offsets = [offset for offset in found if offset is not None]
            if len(offsets) != len(found):
                raise IndexIncomplete(f"{stream}: {IndexIncomplete.__doc__}")
            self.keys.refresh([(stream.aggregate, partition)])
            records = self._fetcher.fetch(topic, partition, offsets)
            for version, record in enumerate(records, first):
                yield self._event(stream, version, record, leniently=leniently)
            if len(found) < PAGE:
                return
            first += PAGE

    def _event(
        self, stream: StreamId, version: int, record: IncomingRecord, *, leniently: bool
    ) -> RecordedEvent:
        try:
            event = recorded(stream.aggregate, record, self.keys)
            if (event.stream, event.version) != (stream, version):
                place = f"{record.topic}-{record.partition}@{record.offset}"
                raise UnreadableEvent(f"{place} is not version {version} of {stream}")
        except UnreadableEvent as reason:
            if not leniently:
                raise
            return unreadable(stream, version, record, str(reason))
        return event

    def refused(self, stream: StreamId) -> Iterator[IncomingRecord]:
        """Outcomes that refused a command for this aggregate: the newest, as long as outcomes are kept."""
        topic = self._topics.outcomes(stream.aggregate)
        (members,) = self._ask(
            [(topic, self._partition(stream))],
            lambda: [("ZRANGE", self._keys.refused(self._number(topic), stream.id), 0, -1)],
        )
        for _, record in self._fetch(index.places_of(members)):
            yield record

    def talk(self, correlation_id: str) -> Iterator[tuple[Source, IncomingRecord]]:
        """All records of a conversation that are still kept, with the topic each stands on. ``keys`` has
        what opens them.
        """
        lasting, recent = self._ask(
            None,
            lambda: [
                ("SMEMBERS", self._keys.talk(correlation_id)),
                ("SMEMBERS", self._keys.recent(correlation_id)),
            ],
        )
        found = list(self._fetch(index.places_of([*lasting, *recent])))
        self.keys.refresh({(source.aggregate, record.partition) for source, record in found})
        yield from found

    def _offsets(self, stream: StreamId, first: int, last: int) -> list[int | None]:
        topic, partition = self._history(stream)
        span = (first - 1) * ENTRY_BYTES, last * ENTRY_BYTES - 1
        (entries,) = self._ask(
            [(topic, partition)], lambda: [("GETRANGE", self._stream_key(topic, stream), *span)]
        )
        return index.offsets_of(entries)

    def _ask(
        self, places: Sequence[tuple[str, int]] | None, question: Callable[[], list[Command]]
    ) -> list[Reply]:
        """Replies of an index that is up to date there (None: everywhere), and was not lost meanwhile."""
        while True:
            self._indexer.catch_up(places, self._on_progress)
            *replies, epoch = self._redis.run([*question(), ("GET", self._epoch_key)])
            if epoch == self._keys.epoch.encode():
                return replies

    @property
    def _keys(self) -> IndexKeys:
        return self._indexer.keys

    def _number(self, topic: str) -> int:
        return self._indexer.numbers[topic]

    def _stream_key(self, topic: str, stream: StreamId) -> str:
        return self._keys.stream(self._number(topic), stream.id)

    def _history(self, stream: StreamId) -> tuple[str, int]:
        return self._topics.history(stream.aggregate), self._partition(stream)

    def _partition(self, stream: StreamId) -> int:
        return partition_for(stream.id.encode(), self._topics.partitions)

    def _fetch(self, places: Iterable[Place]) -> Iterator[tuple[Source, IncomingRecord]]:
        by_number = {number: topic for topic, number in self._indexer.numbers.items()}
        by_part: dict[tuple[str, int], list[int]] = defaultdict(list)
        for place in places:
            if place.topic in by_number:  # else a topic that was made anew since
                by_part[by_number[place.topic], place.partition].append(place.offset)
        if not by_part:
            return
        first = kafka.first_offsets(self._admin, by_part, kafka.OFFSETS_CALL_S)
        for (topic, partition), offsets in by_part.items():
            source = self._indexer.sources[topic]
            kept = offsets
            if source.kind in (Kind.COMMANDS, Kind.OUTCOMES):  # which expire; a history must not
                kept = [offset for offset in offsets if offset >= first[topic, partition]]
            for record in self._fetcher.fetch(topic, partition, kept):
                yield source, record
