"""Readers of old ranges of the history, for webhooks that are behind what all of them read together.

A constant number of readers for all webhooks. A turn reads one page of one partition; whoever waits for a
turn gets it in the order of asking, so one webhook that is far behind costs the others a page, not a day.
Those that wait for the same page share it: after a start, most of them stand at the same offset.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime import kafka
from runtime.lanes import Place
from runtime.records import IncomingRecord, incoming
from runtime.settings import Settings

READERS: Final = 2
PAGE_RECORDS: Final = 500
AT_ONCE: Final = 50
PAGE_BYTES: Final = 1024 * 1024
PAGE_WITHIN_S: Final = 5.0
FETCHED_KBYTES: Final = 2_048
"""What a reader may have read ahead. A single record may be larger."""


class Page(NamedTuple):
    """Records in the order of offsets, and the offset after all that was read, holes included."""

    records: list[IncomingRecord]
    next: int


class _Reader:
    """A consumer on a thread of its own."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings = settings
        self._consumer: Consumer | None = None
        self.thread = ThreadPoolExecutor(1, f"webhooks-behind-{number}")

    def read(self, place: Place, offset: int, most: int) -> Page:
        """On the thread. Raises KafkaException."""
        if self._consumer is None:
            options = kafka.reader(self._settings)
            self._consumer = Consumer(options | {"queued.max.messages.kbytes": FETCHED_KBYTES})
            kafka.know_cluster(self._consumer)
        self._consumer.assign([TopicPartition(*place, offset)])
        try:
            return self._page(self._consumer, offset, most)
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """On the thread."""
        if self._consumer is not None:
            self._consumer.close()

    def _page(self, consumer: Consumer, offset: int, most: int) -> Page:
        records: list[IncomingRecord] = []
        size, until = 0, time.monotonic() + PAGE_WITHIN_S
        while len(records) < most and size < PAGE_BYTES and time.monotonic() < until:
            wanted = min(AT_ONCE, most - len(records))
            for message in kafka.what_came(consumer, wanted, kafka.RETRY_PAUSE_S):
                error = message.error()
                if error is None:
                    records.append(incoming(message))
                    offset = records[-1].offset + 1
                    size += len(records[-1].value or b"")
                elif error.code() == KafkaError._PARTITION_EOF:
                    return Page(records, max(offset, message.offset() or 0))
                elif not kafka.is_transient(error):
                    raise KafkaException(error)
        return Page(records, offset)


class CatchingUp:
    """Use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._all = [_Reader(self._settings, number) for number in range(READERS)]
        self._free: asyncio.Queue[_Reader] = asyncio.Queue()
        self._asked: dict[tuple[Place, int, int], asyncio.Task[Page]] = {}
        for reader in self._all:
            self._free.put_nowait(reader)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for task in list(self._asked.values()):
            task.cancel()
        for reader in self._all:
            await asyncio.shield(loop.run_in_executor(reader.thread, reader.close))
            reader.thread.shutdown()

    async def read(self, place: Place, offset: int, most: int = PAGE_RECORDS) -> Page:
        """Return what comes from this offset on, when it is the caller's turn. Raises KafkaException."""
        wanted = place, offset, most
        task = self._asked.get(wanted)
        if task is None:
            task = asyncio.create_task(self._read(*wanted))
            self._asked[wanted] = task
            task.add_done_callback(lambda done: self._has_read(wanted, done))
        return await asyncio.shield(task)  # others may wait for it, too

    async def _read(self, place: Place, offset: int, most: int) -> Page:
        reader = await self._free.get()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                reader.thread, reader.read, place, offset, most
            )
        finally:
            self._free.put_nowait(reader)

    def _has_read(self, wanted: tuple[Place, int, int], done: asyncio.Task[Page]) -> None:
        del self._asked[wanted]
        if not done.cancelled():
            done.exception()  # seen, also where every caller has gone

    async def record_at(self, place: Place, offset: int) -> IncomingRecord | None:
        """Return the committed record at an offset, or None if there is none. Raises KafkaException."""
        page = await self.read(place, offset, 1)
        return next((record for record in page.records if record.offset == offset), None)
