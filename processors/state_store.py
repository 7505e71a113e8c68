"""What a processor knows of one partition, on disk: newest state of each aggregate, who asked before,
and what waits.

Three RocksDB databases: ``states`` (record key -> newest event record, as it stands on the events
topic), ``inbox`` (``aggregate id/command id`` -> outcome record, as it stands on the outcomes
topic) and ``parked`` (the commands that wait, as they stand on the parked topic; nearly always empty).
All are copies of the topics up to a checkpoint that is written together with the data, so
a crash between a Kafka commit and the write here is mended by reading on from the checkpoint.
Nothing uncommitted is ever written.

The inbox forgets what its topic has forgotten, by offsets and never by a clock: see ``forget_before``.
"""

import logging
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
from schemas.decoding import Int64, decoder
from schemas.personal import forgets
from schemas.topics import TOMBSTONE_RETENTION_MS

logger = logging.getLogger(__name__)

WRITE_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Memory of one database before it writes a file; a partition has three databases."""

BLOCK_CACHE_BYTES: Final = 128 * 1024 * 1024
"""Shared by all databases of the process."""

MAX_OPEN_FILES: Final = 64
BLOOM_BITS: Final = 10
"""Most commands are not repetitions: the filter answers that without touching a file."""

_OWN: Final = b"\x00"
"""How the keys begin that are the copy's own; no id does."""

_CHECKPOINT_KEY: Final = _OWN + b"checkpoint"
_MARK: Final = _OWN + b"mark/"
_WRITTEN: Final = _OWN + b"written/"
"""Before an offset of eight bytes: the keys that were written with it as the checkpoint."""

CLOCK_SKEW_MS: Final = 300_000
"""A checkpoint may be so far in the future, for another machine's clock has written it."""

ERASING: Final = tuple(
    f'{{"type":"{event.__name__}",'.encode()
    for aggregate in AGGREGATES
    for event in aggregate.events
    if forgets(event)
)
"""How the records begin after which nothing older of their key may stay on the disk."""


class StoreFailed(RuntimeError):
    """The local store cannot be read. It says nothing of the record for which it was asked."""


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
    offset: Int64
    written_at_ms: Int64


_decode_checkpoint: Final = decoder(Checkpoint)
_decode_keys: Final = msgspec.msgpack.Decoder(list[bytes]).decode


class PartitionCopy:
    """One database: the newest value of each key of one topic partition."""

    def __init__(
        self,
        directory: Path,
        topic_id: str,
        marker: Marker | None = None,
        *,
        expires: bool = False,
        erases: bool = False,
    ) -> None:
        """Opens it; a copy of another topic, or one too old to trust, is dropped and starts anew.

        ``marker``: what ``marked`` finds again. ``expires``: its topic is not compacted but has a retention;
        ``forget_before`` follows it. ``erases``: what is deleted goes off the disk at once.
        """
        self._erases = erases
        self._directory = directory
        self._marker = marker
        self._topic_id = topic_id
        self._expires = expires
        self._db = self._open()
        if not self._is_trustworthy():
            self.reset()
        self._filled = False
        """True while keys that are restored may be there already: see ``restore``."""

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
        """The newest committed value of a key. Raises StoreFailed."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:  # the library has no class of its own for what RocksDB says
            raise StoreFailed(f"{self._directory}: {error}") from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same of several keys, in their order; a third of the cost of asking for each.

        Raises StoreFailed.
        """
        try:
            return cast(list[bytes | None], self._db.get(list(keys)))
        except Exception as error:
            raise StoreFailed(f"{self._directory}: {error}") from error

    @property
    def empty(self) -> bool:
        """Whether nothing was ever committed under any key that still stands."""
        return all(key == _CHECKPOINT_KEY for key in islice(self._db.keys(), 2))

    def write(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """Applies committed changes (None deletes) and the checkpoint that covers them, as one. What is under
        a key of the copy's own is left out: no processor writes it.
        """
        batch = WriteBatch(raw_mode=True)
        if any(key.startswith(_OWN) for key in changes):
            logger.error("%s: keys that begin with NUL are left out", self._directory)
            changes = {key: value for key, value in changes.items() if not key.startswith(_OWN)}
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if self._marker is not None:
            self._mark(batch, changes, self._marker)
        if self._expires and changes:
            batch.put(_WRITTEN + next_offset.to_bytes(8, "big"), msgspec.msgpack.encode([*changes]))
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

    def restore(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """As ``write``, of what was read from the topic.

        Another process may have written a key again that expired, while here the write that had it before is
        not forgotten yet, for its other keys have not expired: the key is no longer that write's.
        """
        if self._filled and changes:
            values = zip(changes, self.get_many([*changes]), strict=True)
            again = {key for key, value in values if value is not None}
            if again:
                self._disown(again)
        self.write(changes, next_offset)

    def _disown(self, again: set[bytes]) -> None:
        """Take keys from all writes so far; rare, and costs as much as there are writes."""
        batch = WriteBatch(raw_mode=True)
        for entry, keys in cast(Iterator[tuple[bytes, bytes]], self._db.items(from_key=_WRITTEN)):
            if not entry.startswith(_WRITTEN):
                break
            written = _decode_keys(keys)
            if not again.isdisjoint(written):
                batch.put(entry, msgspec.msgpack.encode([k for k in written if k not in again]))
        self._db.write(batch)

    def forget_before(self, log_start: int) -> bool:
        """Delete the keys of one write that the topic has forgotten; return False when there are none left.

        A write is forgotten as a whole, once all of it has expired.
        """
        entries = cast(Iterator[tuple[bytes, bytes]], self._db.items(from_key=_WRITTEN))
        entry, keys = next(entries, (b"", b""))
        offset = entry.removeprefix(_WRITTEN)
        if not entry.startswith(_WRITTEN) or int.from_bytes(offset, "big") > log_start:
            return False
        batch = WriteBatch(raw_mode=True)
        for key in _decode_keys(keys):
            batch.delete(key)
        batch.delete(entry)
        self._db.write(batch)
        return True

    def catch_up_with(self, log_start: int) -> None:
        """Forget all that the topic has forgotten, if the copy expires; before anything more is written."""
        if not self._expires:
            return
        if self.next_offset is not None and self.next_offset <= log_start:
            self.reset()
        while self.forget_before(log_start):
            pass
        self._filled = self.next_offset is not None

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
        return Rdict(str(self._directory), options, access_type=AccessType.read_write())

    def _checkpoint(self) -> Checkpoint | None:
        value = self._db.get(_CHECKPOINT_KEY)
        return None if value is None else _decode_checkpoint(value)

    def _is_trustworthy(self) -> bool:
        """True if it is of the same topic, and not so old that a deletion may have been compacted away.
        A copy from the future is not trusted: the clock has jumped, so its age is unknown.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return True
        if checkpoint.topic_id != self._topic_id or self._expires:
            return checkpoint.topic_id == self._topic_id
        age_ms = time.time_ns() // 1_000_000 - checkpoint.written_at_ms
        return -CLOCK_SKEW_MS < age_ms < TOMBSTONE_RETENTION_MS // 2


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
        self.inbox = PartitionCopy(directory / "outcomes", outcomes_topic_id, expires=True)
        # A release before had it here, expiring by the local clock, with a time at the end of each value.
        shutil.rmtree(directory / "inbox", ignore_errors=True)
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
