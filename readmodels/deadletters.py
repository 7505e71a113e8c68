"""Where records go that no view can use: `<prefix>.dead-letters`, bytes untouched, the cause in headers.

A record can arrive there more than once (a worker died before its position moved); topic, partition and
offset in the headers tell. What is too large for that topic is cut, see schemas/letters.py. A letter that the
broker refuses all the same is sent without the record's own bytes, and if it is refused again, it is logged:
one record must not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from readmodels.records import UNREADABLE_NAME, Unreadable
from schemas.letters import Failure, Letter, letter_of
from schemas.limits import MAX_RECORD_BYTES

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_MS: Final = 15_000

_REFUSALS: Final = (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
"""The letter itself is at fault: the same letter would be refused again."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record and why it could not be used. ``record``: aiokafka's ConsumerRecord."""

    record: Any
    cause: Unreadable

    def letter(self) -> Letter:
        """What was on the record, then the cause under names of our own; cut where it would not fit."""
        record = self.record
        names_are_read = not record.headers or record.headers[0][0] != UNREADABLE_NAME
        came = list(record.headers) if names_are_read else []
        return letter_of(
            record.key,
            record.value,
            came,
            failure=self._failure(),
            place=self.place,
            at_ms=record.timestamp,
            unreadable=not names_are_read,
        )

    def least(self) -> Letter:
        """Only the cause, and the place where the record is."""
        at_ms = self.record.timestamp
        return letter_of(None, None, [], failure=self._failure(), place=self.place, at_ms=at_ms)

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the record."""
        return self.record.topic, self.record.partition, self.record.offset

    def _failure(self) -> Failure:
        return Failure(self.cause.code, str(self.cause), self.cause.stage, self.cause)


class DeadLetters:
    """Sends them; a producer is made when the first one comes, and thrown away when it failed."""

    def __init__(self, topic: str, connection: Mapping[str, Any]) -> None:
        self._topic = topic
        self._connection = connection
        self._producer: AIOKafkaProducer | None = None

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all are on the broker's disk. Raises KafkaError or OSError; then send all of them
        again.
        """
        for letter in letters:
            if not (await self._sent(letter.letter) or await self._sent(letter.least)):
                logger.error("no dead letter for %s: it cannot be sent", letter.place)

    async def _sent(self, make: Callable[[], Letter]) -> bool:
        """False if this letter can never be sent. Raises KafkaError or OSError if it may be sent later."""
        try:
            producer = await self._open()
            letter = make()
            await producer.send_and_wait(
                self._topic, key=letter.key, value=letter.value, headers=letter.headers
            )
        except MemoryError:
            raise
        except Exception as fault:
            await self.close()  # after a refusal the broker expects other sequence numbers
            if isinstance(fault, (KafkaError, OSError)) and not isinstance(fault, _REFUSALS):
                raise
            logger.warning("a dead letter cannot be sent: %r", fault)
            return False
        return True

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
                max_request_size=MAX_RECORD_BYTES,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
            )
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer
