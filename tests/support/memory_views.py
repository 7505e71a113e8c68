"""The store without a Redis, filled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from readmodels.memory import MemoryProjector, MemoryRedis
from readmodels.records import Unreadable
from tests.support.events import Record

PREFIX: Final = "m"


def filled(records: Iterable[Record], store: MemoryRedis | None = None) -> MemoryRedis:
    """A store after these records; those that are unreadable change nothing."""
    store = store or MemoryRedis()
    projector = MemoryProjector(store, PREFIX)
    for record in records:
        try:
            projector.record(record.aggregate, record.key_bytes, record.value, record.headers)
        except Unreadable:
            continue
    return store
