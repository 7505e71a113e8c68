"""A partition's state in dictionaries, for a pipeline in one process and for tests.

The same questions get the same answers as from `state_store`; what is missing is what only a disk needs:
checkpoints, and the age of an outcome. tests/unit/test_memory_state.py runs one suite on both.
"""

from collections.abc import Iterator, Mapping, Sequence

from processors.state_store import Marker


class MemoryCopy:
    """The newest value of each key, as ``PartitionCopy``."""

    def __init__(self, marker: Marker | None = None) -> None:
        self.data: dict[bytes, bytes] = {}
        self._marker = marker

    def get(self, key: bytes) -> bytes | None:
        """The newest committed value of a key."""
        return self.data.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same of several keys, in their order."""
        return [self.data.get(key) for key in keys]

    def write(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """Applies committed changes; None deletes. Of ``next_offset`` nothing is kept."""
        for key, value in changes.items():
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value

    def marked(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key whose value is marked, with the mark; looks at all values."""
        if self._marker is None:
            return
        for key, value in self.data.items():
            if (mark := self._marker(value)) is not None:
                yield key, mark

    def keys(self) -> Iterator[bytes]:
        """All keys, in byte order."""
        return iter(sorted(self.data))


class MemoryState:
    """States, inbox and what is parked of one partition, as ``PartitionState``."""

    def __init__(self, marker: Marker | None = None) -> None:
        self.states = MemoryCopy(marker)
        self.inbox = MemoryCopy()
        self.parked = MemoryCopy()
