"""Fetches single records by their place: one seek each, and no scan.

librdkafka reads ahead and waits before it asks again; with its defaults a seek takes a second. With small
fetches and no waiting it takes one or two milliseconds (``benchmarks/reading.py``).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from eventstore.events import HistoryIncomplete
from runtime import kafka
from runtime.records import IncomingRecord, incoming
from runtime.settings import Settings

POLL_S: Final = 0.5
PATIENCE_S: Final = 15.0
READ_ON: Final = 64
"""Offsets apart up to which reading on is cheaper than a seek."""

MOST_CONSUMERS: Final = 16
"""Partitions whose consumers are kept open; those that were used last."""

_FETCH_BYTES: Final = 16 * 1024


def _options(settings: Settings) -> dict[str, object]:
    return kafka.reader(settings) | {
        # A record that is larger comes all the same: a fetch gives at least one batch (KIP-74).
        "max.partition.fetch.bytes": _FETCH_BYTES,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 64,
        # Its default, a second, is how long the fetcher sleeps when it has read ahead enough.
        "fetch.queue.backoff.ms": 1,
        "fetch.wait.max.ms": 10,
    }


class Fetcher:
    """Not to be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._options = _options(settings)
        self._consumers: OrderedDict[tuple[str, int], Consumer] = OrderedDict()

    def close(self) -> None:
        """Closes its connections."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def fetch(self, topic: str, partition: int, offsets: Iterable[int]) -> Iterator[IncomingRecord]:
        """The records at these offsets, which ascend.

        Raises HistoryIncomplete for one that is not there, KafkaException.
        """
        reader: Consumer | None = None
        at = 0
        try:
            for offset in offsets:
                if reader is None:
                    reader = self._at(topic, partition, offset)
                elif not 0 <= offset - at <= READ_ON:
                    reader.seek(TopicPartition(topic, partition, offset))
                yield _read(reader, topic, partition, offset)
                at = offset + 1
        except (KafkaException, HistoryIncomplete):
            self._drop((topic, partition))  # after an error it reads no more, and cannot seek
            raise

    def _at(self, topic: str, partition: int, offset: int) -> Consumer:
        place = topic, partition
        known = self._consumers.pop(place, None)
        if known is None:
            known = self._open(TopicPartition(topic, partition, offset))
            if len(self._consumers) >= MOST_CONSUMERS:
                self._consumers.popitem(last=False)[1].close()
        else:
            known.seek(TopicPartition(topic, partition, offset))
        self._consumers[place] = known
        return known

    def _drop(self, place: tuple[str, int]) -> None:
        consumer = self._consumers.pop(place, None)
        if consumer is not None:
            consumer.close()

    def _open(self, at: TopicPartition) -> Consumer:
        consumer = Consumer(self._options)
        kafka.until_answered(lambda: consumer.list_topics(timeout=kafka.LIST_CALL_S), PATIENCE_S)
        consumer.assign([at])
        return consumer


def _read(reader: Consumer, topic: str, partition: int, offset: int) -> IncomingRecord:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = reader.poll(POLL_S)
        if message is None:
            continue
        at = int(message.offset() or 0)
        error = message.error()
        if error is None:
            if at == offset:
                return incoming(message)
            gone = at > offset
        elif error.code() == KafkaError._PARTITION_EOF:
            gone = at > offset  # else what was committed since has not arrived here yet
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            gone = True
        elif kafka.is_transient(error):
            gone = False
        else:
            raise KafkaException(error)
        if gone:
            raise HistoryIncomplete(
                f"{topic}-{partition} has no record at offset {offset} any more, but the index knows one:"
                " somebody deleted records of it. A history must never expire; see `orderflow topics diff`."
            )
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
