"""Where records go that no view can use: `<prefix>.dead-letters`, bytes untouched, the cause in headers.

A record can arrive there more than once (a worker died before its position moved); topic, partition and
offset in the headers tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from readmodels.records import Unreadable
from schemas.letters import Failure, letter_marks
from schemas.topics import MAX_RECORD_BYTES

ROOM_FOR_HEADERS: Final = 64 * 1024
REQUEST_TIMEOUT_MS: Final = 15_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record and why it could not be used. ``record``: aiokafka's ConsumerRecord."""

    record: Any
    cause: Unreadable

    def headers(self) -> list[tuple[str, bytes]]:
        """What was on the record, then the cause under names of our own."""
        record, cause = self.record, self.cause
        place = record.topic, record.partition, record.offset
        failure = Failure(cause.code, str(cause), cause.stage, cause)
        return letter_marks(record.headers, failure, place, record.timestamp)


class DeadLetters:
    """Sends them; a producer is made when the first one comes, and thrown away when it failed."""

    def __init__(self, topic: str, connection: Mapping[str, Any]) -> None:
        self._topic = topic
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all are on the broker's disk. Raises KafkaError; then send all of them again."""
        try:
            producer = await self._open()
            for letter in letters:
                await producer.send_and_wait(
                    self._topic,
                    key=letter.record.key,
                    value=letter.record.value,
                    headers=letter.headers(),
                )
        except KafkaError:
            await self.close()
            raise

    async def close(self) -> None:
        """Nothing is lost by it: every letter was waited for."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _open(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **self._connection,
                enable_idempotence=True,
                acks="all",
                max_request_size=MAX_RECORD_BYTES + ROOM_FOR_HEADERS,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
            )
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer
