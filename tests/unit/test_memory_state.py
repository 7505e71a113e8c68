"""One suite for the state on disk and the state in memory: the same writes, the same answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.memory import MemoryCopy
from processors.state_store import Copy, PartitionCopy

KEYS: Final = (b"a", b"a/part", b"b", b"z")

writes = st.lists(
    st.dictionaries(st.sampled_from(KEYS), st.none() | st.sampled_from((b"1", b"!2", b"!3"))),
    max_size=8,
)


def marker(value: bytes) -> bytes | None:
    """Values that begin with an exclamation mark are worth to be found."""
    return value[1:] if value.startswith(b"!") else None


@contextmanager
def on_disk() -> Iterator[Copy]:
    with tempfile.TemporaryDirectory() as folder:
        copy = PartitionCopy(Path(folder) / "states", "topic", marker=marker)
        try:
            yield copy
        finally:
            copy.close()


def told(copy: Copy) -> tuple[list[bytes | None], list[tuple[bytes, bytes]]]:
    """All that a decider can learn of it."""
    found = copy.get_many(KEYS)
    assert found == [copy.get(key) for key in KEYS]
    return found, sorted(copy.marked())


@given(writes)
@settings(max_examples=40, deadline=None)
def test_both_tell_the_same_after_the_same_writes(changes: list[dict[bytes, bytes | None]]) -> None:
    memory = MemoryCopy(marker)
    with on_disk() as disk:
        for number, change in enumerate(changes):
            disk.write(change, number + 1)
            memory.write(change, number + 1)

            assert told(memory) == told(disk)
