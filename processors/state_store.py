"""What a processor knows of one partition, on disk: newest state of each aggregate, who asked before,
and what waits.

Three RocksDB databases: ``states`` (record key -> newest event record, as it stands on the events
topic), ``inbox`` (``aggregate id/command id`` -> outcome record, as it stands on the outcomes
topic) and ``parked`` (the commands that wait, as they stand on the parked topic; nearly always empty).
All are copies of the topics up to a checkpoint that is written together with the data, so
a crash between a Kafka commit and the write here is mended by reading on from the checkpoint.
Nothing uncommitted is ever written.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
)

from sagas import AGGREGATES
from schemas.decoding import decoder
from schemas.personal import forgets
from schemas.topics import IDEMPOTENCY_WINDOW_MS, TOMBSTONE_RETENTION_MS

WRITE_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Memory of one database before it writes a file; a partition has three databases."""

BLOCK_CACHE_BYTES: Final = 128 * 1024 * 1024
"""Shared by all databases of the process."""

MAX_OPEN_FILES: Final = 64
BLOOM_BITS: Final = 10
"""Most commands are not repetitions: the filter answers that without touching a file."""

_CHECKPOINT_KEY: Final = b"\x00checkpoint"  # no record key begins with NUL
_MARK: Final = b"\x00mark/"

ERASING: Final = tuple(
    f'{{"type":"{event.__name__}",'.encode()
    for aggregate in AGGREGATES
    for event in aggregate.events
    if forgets(event)
)
"""How the records begin after which nothing older of their key may stay on the disk."""

Marker = Callable[[bytes], bytes | None]
"""Of a value, what is worth to be found without looking at all others; None: nothing."""
_cache = Cache(BLOCK_CACHE_BYTES)


class Copy(Protocol):
    """What a decider wants of a copy: ``PartitionCopy``, or ``processors.memory.MemoryCopy``."""

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def write(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None: ...
    def marked(self) -> Iterator[tuple[bytes, bytes]]: ...
    def keys(self) -> Iterator[bytes]: ...


class State(Protocol):
    """What a decider knows of its partition: ``PartitionState``, or ``processors.memory.MemoryState``."""

    @property
    def states(self) -> Copy: ...
    @property
    def inbox(self) -> Copy: ...
    @property
    def parked(self) -> Copy: ...


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a database has followed its topic: the next offset, and whose offsets these are."""

    topic_id: str
    offset: int
    written_at_ms: int


_decode_checkpoint: Final = decoder(Checkpoint)


class PartitionCopy:
    """One database: the newest value of each key of one topic partition."""

    def __init__(
        self,
        directory: Path,
        topic_id: str,
        ttl_ms: int | None = None,
        marker: Marker | None = None,
        *,
        erases: bool = False,
    ) -> None:
        """Opens it; a copy of another topic, or one too old to trust, is dropped and starts anew.

        ``marker``: what ``marked`` finds again. ``erases``: what is deleted goes off the disk at once.
        """
        self._erases = erases
        self._directory = directory
        self._marker = marker
        self._topic_id = topic_id
        self._ttl_ms = ttl_ms
        self._db = self._open()
        if not self._is_trustworthy():
            self.reset()

    @property
    def next_offset(self) -> int | None:
        """First offset of the topic that is not in here; None when it is empty."""
        checkpoint = self._checkpoint()
        return None if checkpoint is None else checkpoint.offset

    @property
    def written_at_ms(self) -> int | None:
        """When something was written last, epoch milliseconds; None when it is empty."""
        checkpoint = self._checkpoint()
        return None if checkpoint is None else checkpoint.written_at_ms

    def __contains__(self, key: bytes) -> bool:
        """True if a key has a value."""
        return self._db.get(key) is not None

    def get(self, key: bytes) -> bytes | None:
        """The newest committed value of a key."""
        value: bytes | None = self._db.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same of several keys, in their order; a third of the cost of asking for each."""
        return cast(list[bytes | None], self._db.get(list(keys)))

    @property
    def empty(self) -> bool:
        """Whether nothing was ever committed under any key that still stands."""
        return all(key == _CHECKPOINT_KEY for key in islice(self._db.keys(), 2))

    def write(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """Applies committed changes (None deletes) and the checkpoint that covers them, as one."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if self._marker is not None:
            self._mark(batch, changes, self._marker)
        forgotten = [
            key
            for key, value in changes.items()
            if (value.startswith(ERASING) if value else self._erases and key in self)
        ]
        if forgotten:
            # Before the checkpoint: killed in between, this is read from the topic and done again.
            self._db.write(batch)
            self._erase(forgotten)
            batch = WriteBatch(raw_mode=True)
        checkpoint = Checkpoint(self._topic_id, next_offset, time.time_ns() // 1_000_000)
        batch.put(_CHECKPOINT_KEY, msgspec.json.encode(checkpoint))
        self._db.write(batch)

    def marked(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key whose newest value is marked, with the mark; costs as much as there are marks."""
        found = cast(Iterator[tuple[bytes, bytes]], self._db.items(from_key=_MARK))  # raw mode
        for key, mark in found:
            if not key.startswith(_MARK):
                return
            yield key.removeprefix(_MARK), mark

    def keys(self) -> Iterator[bytes]:
        """All keys, in byte order, of a copy that marks nothing; reads the whole copy."""
        found = cast(Iterator[bytes], self._db.keys())  # raw mode
        return (key for key in found if key != _CHECKPOINT_KEY)

    def _mark(
        self, batch: WriteBatch, changes: Mapping[bytes, bytes | None], marker: Marker
    ) -> None:
        for key, value in changes.items():
            mark = None if value is None else marker(value)
            if mark is None:
                batch.delete(_MARK + key)
            else:
                batch.put(_MARK + key, mark)

    def _erase(self, keys: Sequence[bytes]) -> None:
        """Takes off the disk what stood under these keys before: RocksDB keeps what was overwritten in its
        log until it is flushed, and in its files until they are compacted.
        """
        self._db.flush()
        for key in keys:
            self._db.compact_range(key, key + b"\x00")

    def reset(self) -> None:
        """Forgets everything."""
        self._db.close()
        shutil.rmtree(self._directory)
        self._db = self._open()

    def close(self) -> None:
        """Releases the files for another process."""
        self._db.close()

    def _open(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_max_open_files(MAX_OPEN_FILES)
        options.set_keep_log_file_num(2)
        options.set_max_file_opening_threads(1)  # to start its 16 threads is what takes time
        table = BlockBasedOptions()
        table.set_block_cache(_cache)
        table.set_bloom_filter(BLOOM_BITS, False)
        options.set_block_based_table_factory(table)
        self._directory.mkdir(parents=True, exist_ok=True)
        access = (
            AccessType.read_write()
            if self._ttl_ms is None
            else AccessType.with_ttl(self._ttl_ms // 1000)
        )
        return Rdict(str(self._directory), options, access_type=access)

    def _checkpoint(self) -> Checkpoint | None:
        value = self._db.get(_CHECKPOINT_KEY)
        return None if value is None else _decode_checkpoint(value)

    def _is_trustworthy(self) -> bool:
        """Of the same topic, and not away for so long that a deletion may have been compacted away."""
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return True
        age_ms = time.time_ns() // 1_000_000 - checkpoint.written_at_ms
        return checkpoint.topic_id == self._topic_id and age_ms < TOMBSTONE_RETENTION_MS // 2


class PartitionState:
    """States, inbox and what is parked of one partition of one aggregate's topics."""

    def __init__(
        self,
        directory: Path,
        events_topic_id: str,
        outcomes_topic_id: str,
        parked_topic_id: str,
        marker: Marker | None = None,
        *,
        personal: bool = False,
    ) -> None:
        """``personal``: commands that waited leave nothing on the disk."""
        self.states = PartitionCopy(directory / "states", events_topic_id, marker=marker)
        self.inbox = PartitionCopy(
            directory / "inbox", outcomes_topic_id, ttl_ms=IDEMPOTENCY_WINDOW_MS
        )
        self.parked = PartitionCopy(directory / "parked", parked_topic_id, erases=personal)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever committed, as far as it still stands."""
        return self.states.empty and self.inbox.empty and self.parked.empty

    def close(self) -> None:
        """Releases the files for another process."""
        self.states.close()
        self.inbox.close()
        self.parked.close()
