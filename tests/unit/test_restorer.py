"""When a copy counts as restored; the client and the store are doubles."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from processors.restore import Restorer
from runtime import kafka

ONE, OTHER = ("t.order.events", 0), ("t.order.events", 1)


def record(at: tuple[str, int], offset: int) -> SimpleNamespace:
    return SimpleNamespace(
        error=lambda: None,
        topic=lambda: at[0],
        partition=lambda: at[1],
        offset=lambda: offset,
        key=lambda: b"k",
        value=lambda: b"%d" % offset,
    )


class Copy:
    def __init__(self) -> None:
        self.offset = 0

    def restore(self, changes: dict[bytes, bytes], offset: int) -> None:
        time.sleep(0.05)
        self.offset = offset


def test_what_was_read_past_the_target_is_written_before_the_copy_counts_as_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Copy()
    with ThreadPoolExecutor(1) as writer:
        restorer: Any = object.__new__(Restorer)
        restorer._writer, restorer._writing, restorer._records = writer, None, 0
        restorer._copies = {ONE: one, OTHER: Copy()}
        restorer._targets = {ONE: 1, OTHER: 9}
        restorer._moved_at = restorer._told_at = time.monotonic()
        restorer._consumer = SimpleNamespace(incremental_unassign=lambda _: None)
        read = iter([[record(ONE, 0)], [record(ONE, 1)], [record(OTHER, 0)]])
        monkeypatch.setattr(kafka, "what_came", lambda *_: next(read))
        restorer.step()
        restorer.step()
        assert restorer.is_restoring(*ONE)
        restorer.step()
        assert not restorer.is_restoring(*ONE)
        assert one.offset == 2
