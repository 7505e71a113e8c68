"""What goes into one transaction: so many commands, or so much to write."""

from __future__ import annotations

import json
from itertools import count

import pytest

from commands import by_name
from processors import loop
from processors.decider import Decider
from processors.loop import Batch
from processors.memory import MemoryState
from runtime.records import IncomingRecord
from schemas.topics import Topics

_offsets = count()


def registration(description: str) -> IncomingRecord:
    """A command that is written down in three records, two of which have the description in them."""
    offset = next(_offsets)
    data = {"description": description, "opening_stock": 1}
    value = {"type": "RegisterItem", "command_id": f"c{offset}", "data": data}
    key = f"sku-{offset}".encode()
    return IncomingRecord("t.inventory.commands", 0, offset, 1, key, json.dumps(value).encode(), [])


def decider() -> Decider:
    return Decider(by_name["inventory"], Topics("t", partitions=1), 0, MemoryState())


def test_a_batch_is_full_with_its_commands() -> None:
    batch = Batch(0.0, most=3)
    batch.add(decider(), [registration("mug"), registration("mug")])
    assert not batch.full
    batch.add(decider(), [registration("mug")])
    assert batch.full


def test_a_batch_of_few_commands_is_full_with_what_it_reads_and_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "BATCH_BYTES", 1_000)
    batch = Batch(0.0, most=3_000)
    read = registration("mug")
    batch.add(decider(), [read])
    written = sum(len(record.value or b"") for record in batch.records)
    assert batch.bytes == written + len(read.value or b"")
    assert not batch.full
    batch.add(decider(), [registration("m" * 200), registration("m" * 200)])
    assert batch.full
