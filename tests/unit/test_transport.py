"""Which records the projector's transport takes from its client, the client being a double."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import TopicAuthorizationFailedError
from faust.types import TP

from readmodels.fetched import Taken
from readmodels.transport import Batch, BatchThread, Mark

EVENTS = [TP("events", partition) for partition in range(3)]
MOST = 10
RECORD_BYTES = 100


class Fetcher:
    """As aiokafka's: offsets of a partition, from its position on, or an error; asked for several, it gives
    those of the first.
    """

    def __init__(self, held: dict[TP, int | None]) -> None:
        self._closed = False
        self._subscriptions = SimpleNamespace(fetch_context=nullcontext)
        self._records = {tp: _held(count) for tp, count in held.items()}
        self.left = dict(held)
        self.positions = dict.fromkeys(EVENTS, 0)

    async def fetched_records(
        self, wanted: set[TP], timeout: float | None = None, max_records: int = MOST
    ) -> dict[TP, list[Any]]:
        for tp in [tp for tp in self.left if tp in wanted]:
            count = self.left[tp]
            if count is None:
                raise TopicAuthorizationFailedError(tp.topic)
            taken = min(count, max_records)
            self.left[tp] = count - taken
            start = self.positions[tp]
            self.positions[tp] = start + taken
            records = Taken(
                SimpleNamespace(offset=offset) for offset in range(start, self.positions[tp])
            )
            records.size = taken * RECORD_BYTES
            if records:
                return {tp: records}
        return {}


def _held(count: int | None) -> object:
    kind = FetchError if count is None else FetchResult
    return object.__new__(kind)


def fetch(fetcher: Fetcher) -> dict[TP, Batch]:
    """What one reading gives."""
    thread: Any = object.__new__(BatchThread)
    thread.marks = {(tp.topic, tp.partition): Mark(1, 0) for tp in EVENTS}
    positions = SimpleNamespace(applied=dict)
    thread.consumer = SimpleNamespace(flow_active=True, positions=positions)
    thread._position = lambda part: fetcher.positions[TP(*part)]
    client: Any = SimpleNamespace(_fetcher=fetcher, _closed=False)
    found: dict[TP, Batch] = asyncio.run(
        thread._fetch_records(client, set(EVENTS), timeout=0.1, max_records=MOST)
    )
    return found


def test_each_partition_that_has_records_gives_some() -> None:
    found = fetch(Fetcher({EVENTS[0]: 25, EVENTS[2]: 4}))
    assert {tp.partition: (batch.start, batch.after) for tp, batch in found.items()} == {
        0: (0, 10),
        2: (0, 4),
    }


def test_nothing_is_taken_before_an_error_is_raised() -> None:
    fetcher = Fetcher({EVENTS[0]: 5, EVENTS[1]: None, EVENTS[2]: 5})
    with pytest.raises(TopicAuthorizationFailedError):
        fetch(fetcher)
    assert set(fetcher.positions.values()) == {0}
