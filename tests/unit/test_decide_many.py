"""Many commands at once, in transactions of any size: the same records as one after the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import by_name
from processors.decider import Decider
from processors.memory import MemoryState
from processors.state_store import PartitionCopy, PartitionState
from runtime.records import IncomingRecord, OutgoingRecord
from schemas.records import decode_outcome
from schemas.topics import Topics

TOPICS: Final = Topics("t", partitions=1)
SKUS: Final = ("A", "B")
RESERVATIONS: Final = ("o1", "o2")

kinds = st.sampled_from(
    (
        ("RegisterItem", {"description": "mug", "opening_stock": 3}),
        ("ReceiveStock", {"quantity": 2}),
        ("AdjustStock", {"delta": 0, "reason": "refused by the edge"}),
        *(
            (name, {"reservation_id": reservation, **more})
            for reservation in RESERVATIONS
            for name, more in (
                ("ReserveStock", {"quantity": 2}),
                ("CommitReservation", {}),
                ("ReleaseReservation", {}),
            )
        ),
    )
)
commands = st.tuples(st.sampled_from(SKUS), st.integers(0, 12), kinds)
garbage = st.tuples(st.sampled_from((b"A", b"", b"\xff")), st.sampled_from((b"", b"{", b'{"x":1}')))
histories = st.lists(st.one_of(commands, commands, commands, garbage), min_size=1, max_size=30)
"""Few SKUs, reservations and command ids, so that they meet: repeated ids, ids used for something else."""


def record(offset: int, what: Any) -> IncomingRecord:
    if isinstance(what[0], bytes):
        key, value = what
    else:
        sku, number, (kind, data) = what
        key = sku.encode()
        # A command id is a reservation's name, too: both are keys of their own kind.
        value = json.dumps({"type": kind, "command_id": f"o{number}", "data": data}).encode()
    return IncomingRecord("t.inventory.commands", 0, offset, 1_000 + offset, key, value, [])


def decider(store: MemoryState | PartitionState) -> Decider:
    return Decider(by_name["inventory"], TOPICS, 0, store)


def one_by_one(records: list[IncomingRecord]) -> list[OutgoingRecord]:
    """Each in a transaction of its own."""
    one, found = decider(MemoryState()), []
    for each in records:
        found += one.decide(each)
        one.seal()
        one.committed(1, 1, None)
    return found


@given(histories, st.lists(st.integers(1, 7), min_size=1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_many_at_once_are_decided_as_one_after_the_other(
    history: list[Any], sizes: list[int], on_disk: bool
) -> None:
    records = [record(offset, what) for offset, what in enumerate(history)]
    with tempfile.TemporaryDirectory() as folder:
        store = PartitionState(Path(folder), "e", "o", "p") if on_disk else MemoryState()
        many, found, at, under_way = decider(store), [], 0, False
        while at < len(records):
            for size in sizes:  # several reads from the topic go into one transaction
                found += many.decide_all(records[at : at + size])
                at += size
            if under_way:  # the one before is committed only now
                many.committed(at, at, None)
            many.seal()
            under_way = True
        if isinstance(store, PartitionState):
            store.close()
    assert found == one_by_one(records)


@given(histories, histories)
@settings(max_examples=60, deadline=None)
def test_after_a_failed_transaction_nothing_of_it_is_remembered(
    committed: list[Any], failed: list[Any]
) -> None:
    records = [record(offset, what) for offset, what in enumerate(committed)]
    lost = [record(len(records) + offset, what) for offset, what in enumerate(failed)]
    one = decider(MemoryState())
    one.decide_all(records)
    one.seal()
    one.committed(1, 1, None)
    one.decide_all(lost)
    one.seal()
    one.decide_all(lost)
    one.discard()
    found = one.decide_all(lost)
    before = len(one_by_one(records))
    assert found == one_by_one(records + lost)[before:]


def test_a_transaction_that_stood_after_all_counts_when_it_was_read_again() -> None:
    """A commit whose answer was lost: everything is forgotten, and the topics are read on."""
    store = MemoryState()
    one = decider(store)
    one.decide_all([record(0, ("A", 1, ("RegisterItem", {"description": "mug"})))])
    one.seal()
    one.committed(1, 1, None)
    stood = one.decide_all([record(1, ("A", 2, ("ReceiveStock", {"quantity": 2})))])
    one.seal()
    one.discard()
    restored = {each.key or b"": each.value for each in stood if each.topic.endswith(".events")}
    store.states.write(restored, 2)
    found = one.decide_all([record(2, ("A", 3, ("ReceiveStock", {"quantity": 2})))])
    (outcome,) = [decode_outcome(r.value or b"") for r in found if r.topic.endswith(".outcomes")]
    assert outcome.version == 3


def test_what_is_committed_must_have_been_reported() -> None:
    one = decider(MemoryState())
    one.decide_all([record(0, ("A", 1, ("RegisterItem", {"description": "mug"})))])
    one.seal()
    with pytest.raises(RuntimeError, match="did not report"):
        one.committed(None, 1, None)


def test_a_command_is_known_again_long_after_it_was_committed() -> None:
    """Also when it is no longer among what a decider remembers by itself."""
    one = decider(MemoryState())
    register = record(0, ("A", 1, ("RegisterItem", {"description": "mug"})))
    for number in range(3_000):
        sku = f"S{number}"
        what = sku, 1, ("RegisterItem", {"description": "mug"})
        one.decide_all([register if number == 0 else record(number, what)])
        one.seal()
        one.committed(number, number, None)
    again = one.decide_all([record(9_000, ("A", 2, ("RegisterItem", {"description": "mug"})))])
    assert [decode_outcome(each.value or b"").version for each in again] == [1]


WRITES_UNTIL_KILLED: Final = """
import os, signal, sys
from pathlib import Path
from processors.state_store import PartitionCopy
copy = PartitionCopy(Path(sys.argv[1]), "topic")
first = copy.next_offset or 0
for number in range(first, first + 9_000):
    copy.write({b"%d" % number: b"x" * 2_000, b"newest": b"%d" % number}, number + 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_copy_is_a_prefix_of_what_was_written(tmp_path: Path) -> None:
    """Whatever is missing, its checkpoint says from where on."""
    reached = 0
    for _ in range(2):
        argv = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path / "copy")]
        killed = subprocess.run(argv, check=False, env={**os.environ})
        assert killed.returncode == -signal.SIGKILL
        copy = PartitionCopy(tmp_path / "copy", "topic")
        offset = copy.next_offset or 0
        assert reached < offset
        assert copy.get(b"newest") == b"%d" % (offset - 1)
        assert all(copy.get_many([b"%d" % number for number in range(offset)]))
        assert copy.get(b"%d" % offset) is None
        copy.close()
        reached = offset


def test_a_closed_copy_has_all_that_was_written(tmp_path: Path) -> None:
    copy = PartitionCopy(tmp_path, "topic")
    copy.write({b"a": b"1", b"b": b"2"}, 2)
    copy.write({b"b": None}, 3)
    copy.close()
    again = PartitionCopy(tmp_path, "topic")
    assert (again.next_offset, again.get_many([b"b", b"a", b"c"])) == (3, [None, b"1", None])
    again.close()
