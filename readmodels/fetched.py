"""Takes records out of what aiokafka has fetched, whatever is in them, and no more bytes than fit.

Two classes of aiokafka's fetcher are replaced, by `install`, and only here:

- `Records`: aiokafka decodes each header name as UTF-8 and gives up the whole fetch where one is not. Kafka
  does not ask for UTF-8, so such a record is read here, with `UNREADABLE_HEADERS` in place of its headers.
- `Result`: aiokafka limits a reading by the number of records. Here their bytes count, too.

Only `transport` imports this. The invariant: every record that the broker has is handed on, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from readmodels.records import UNREADABLE_HEADERS

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Keys, values and headers of one reading; a single larger record still comes."""

_LENGTH_AT: Final = 8
_BATCH_AT: Final = 12
"""Where a batch has its length, and where what the length counts begins."""


class Records:
    """As aiokafka's `MemoryRecords`: the batches of one fetch."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._records = MemoryRecords(data)

    def size_in_bytes(self) -> int:
        """Size of the fetch."""
        return len(self._data)

    def has_next(self) -> bool:
        """True if there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> RecordBatch | None:
        """The next batch; None after the last."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._at
        length = int.from_bytes(self._data[begin + _LENGTH_AT : begin + _BATCH_AT], "big")
        self._at = begin + _BATCH_AT + length
        return RecordBatch(batch, memoryview(self._data)[begin : self._at])


class RecordBatch:
    """As aiokafka's batch; its records are read again by `read_leniently` where aiokafka cannot."""

    __slots__ = ("_batch", "_data")

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        after = -1
        try:
            for record in self._batch:
                yield record
                after = record.offset
        except (UnicodeDecodeError, CorruptRecordException):
            for record in read_leniently(self._data):
                if record.offset > after:
                    yield record


def read_leniently(data: memoryview) -> Iterator[_DefaultRecordPy]:
    """The records of one batch of format 2. Raises CorruptRecordException."""
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()
    buffer, at = batch._buffer, batch._pos
    for _ in range(batch._num_records):
        length, at = decode_varint(buffer, at)
        yield _record(batch, buffer, at, at + length)
        at += length


def _record(batch: _DefaultRecordBatchPy, buffer: bytearray, at: int, end: int) -> _DefaultRecordPy:
    at += 1  # attributes: none are defined
    later_ms, at = decode_varint(buffer, at)
    further, at = decode_varint(buffer, at)
    key, at = _bytes(buffer, at)
    value, at = _bytes(buffer, at)
    count, at = decode_varint(buffer, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _bytes(buffer, at)
        header, at = _bytes(buffer, at)
        try:
            headers.append(((name or b"").decode(), header))
        except UnicodeDecodeError:
            headers = list(UNREADABLE_HEADERS)
            break
    else:
        if at != end:
            raise CorruptRecordException(f"a record ends at {at}, not at {end}")
    at_ms = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + later_ms
    return _DefaultRecordPy(
        batch.base_offset + further, at_ms, batch.timestamp_type, key, value, headers
    )


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(buffer, at)
    if size < 0:
        return None, at
    return bytes(buffer[at : at + size]), at + size


class Taken(list[Any]):
    """Records of one partition, in order. ``size``: the bytes of their keys, values and headers."""

    size: int = 0


class Result(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka has no types here
    """As aiokafka's `FetchResult`: what was fetched of one partition."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Taken:
        """The next records: so many at most, and not many more bytes than BATCH_BYTES."""
        found, size = Taken(), 0
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return found
        for record in self._partition_records:
            found.append(record)
            size += record.serialized_key_size + record.serialized_value_size
            for name, value in record.headers:  # written out: this runs for every record there is
                size += len(name) + (len(value) if value else 0)
            if size >= BATCH_BYTES or len(found) == max_records:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records = None
        found.size = size
        return found


def install() -> None:
    """Make aiokafka's fetcher use the classes above, in this process."""
    fetcher.MemoryRecords = Records
    fetcher.FetchResult = Result
