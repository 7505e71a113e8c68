"""Lets the inboxes of a processor forget what the outcomes topics have forgotten.

The topic decides, and no clock of this machine: a fresh copy and an old one know the same command ids, and a
clock that jumps forgets nothing. Retention moves a partition's log start; what lies before it is deleted from
the copy, a little at a time. Not thread-safe.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

logger = logging.getLogger(__name__)

ASK_EVERY_S: Final = 600.0
REQUEST_TIMEOUT_S: Final = 30.0

Place = tuple[str, int]


class Expiring(Protocol):
    """A copy that forgets, see ``PartitionCopy.forget_before``."""

    def forget_before(self, log_start: int) -> bool: ...


class Expiry:
    """Asks once in a while where the topics begin, and has the copies forget what was before."""

    def __init__(self, admin: AdminClient, every_s: float = ASK_EVERY_S) -> None:
        self._admin = admin
        self._every_s = every_s
        self._asked: dict[TopicPartition, Any] = {}
        self._starts: dict[Place, int] = {}
        self._ask_at = time.monotonic() + every_s

    def due(self) -> bool:
        """Return True if ``step`` has something to do."""
        return bool(self._asked or self._starts) or time.monotonic() >= self._ask_at

    def step(self, copies: Mapping[Place, Expiring]) -> None:
        """Do a little of it; waits for nothing."""
        if self._asked:
            self._hear()
        elif self._starts:
            self._forget(copies)
        elif copies:
            self._ask_at = time.monotonic() + self._every_s
            asked = {TopicPartition(*place): OffsetSpec.earliest() for place in copies}
            self._asked = self._admin.list_offsets(asked, request_timeout=REQUEST_TIMEOUT_S)

    def _hear(self) -> None:
        if not all(future.done() for future in self._asked.values()):
            return
        asked, self._asked = self._asked, {}
        for at, future in asked.items():
            try:
                self._starts[at.topic, at.partition] = future.result().offset
            except KafkaException as error:
                logger.warning("where %s-%d begins is not known: %s", at.topic, at.partition, error)

    def _forget(self, copies: Mapping[Place, Expiring]) -> None:
        for place, start in list(self._starts.items()):
            copy = copies.get(place)
            if copy is None or not copy.forget_before(start):
                del self._starts[place]
