"""The memory of command ids: it forgets what its topic has forgotten, and goes by no clock of the machine."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.expiry import Expiry
from processors.state_store import PartitionCopy, PartitionState
from schemas import topics
from schemas.topics import Topics

DAY_MS = 24 * 3_600_000
KEYS = st.sampled_from([b"o-%d/c-%d" % (n % 3, n) for n in range(4)])

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sets(KEYS, min_size=1, max_size=3)),
        st.tuples(st.just("elsewhere"), st.sets(KEYS, min_size=1, max_size=3)),
        st.tuples(st.just("expire"), st.integers(1, 3)),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=25,
)


def opened(folder: Path) -> PartitionCopy:
    return PartitionCopy(folder / "copy", "topic", expires=True)


@given(steps)
@settings(max_examples=80, deadline=None)
def test_a_copy_knows_what_its_topic_has_and_nothing_else(history: list[tuple[str, Any]]) -> None:
    """A processor writes an id again only when its own copy has forgotten it. Another one, whose copy was
    written in other pieces, may do so sooner, but not before the topic has forgotten it.
    """
    topic: list[tuple[int, bytes]] = []
    log_start = end = 0
    with tempfile.TemporaryDirectory() as name:
        copy = opened(Path(name))
        for what, more in history:
            match what:
                case "write" | "elsewhere":
                    copy.catch_up_with(log_start)
                    there = {key for _, key in topic}
                    known = there if what == "elsewhere" else [k for k in more if copy.get(k)]
                    new = [key for key in more if key not in known]
                    topic += [(end + n, key) for n, key in enumerate(new)]
                    end += len(new) + 1  # and the marker of the transaction
                    keep = copy.write if what == "write" else copy.restore
                    keep(dict.fromkeys(new, b"%d" % end), end)
                case "expire":
                    log_start = min(end, log_start + more)
                    topic = [(offset, key) for offset, key in topic if offset >= log_start]
                    copy.catch_up_with(log_start)
                case _:
                    copy.close()
                    copy = opened(Path(name))
            there = {key for _, key in topic}
            known = {key for key in (b"o-%d/c-%d" % (n % 3, n) for n in range(4)) if copy.get(key)}
            assert there <= known, "forgotten before its topic has"
            # Kafka deletes whole writes here or parts of them; a copy forgets a write as a whole.
            assert known <= there | {key for key in known if _first_offset(copy, key) > log_start}
        copy.close()


def _first_offset(copy: PartitionCopy, key: bytes) -> int:
    return int(copy.get(key) or 0)


def test_a_copy_that_is_all_expired_starts_anew(tmp_path: Path) -> None:
    copy = opened(tmp_path)
    copy.write({b"a/1": b"x"}, 5)
    copy.catch_up_with(5)
    assert copy.next_offset is None
    assert copy.empty
    copy.close()


@pytest.mark.parametrize("days", [-4000, -3, 0, 30, 4000])
def test_whatever_the_clock_says_no_command_id_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    store = PartitionState(tmp_path, "e", "o", "p")
    store.inbox.write({b"o-1/c-1": b"first"}, 2)
    store.close()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + days * DAY_MS * 1_000_000)
    store = PartitionState(tmp_path, "e", "o", "p")
    assert store.inbox.get(b"o-1/c-1") == b"first"
    store.close()


@pytest.mark.parametrize(
    ("days", "kept"), [(-4000, False), (-1, False), (0, True), (3, True), (4, False)]
)
def test_states_that_may_have_missed_a_deletion_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, kept: bool
) -> None:
    """Seen from a clock that was set back, a copy is from the future, and its age unknown."""
    store = PartitionState(tmp_path, "e", "o", "p")
    store.states.write({b"SKU/o-1": b"reserved"}, 2)
    store.close()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + days * DAY_MS * 1_000_000)
    store = PartitionState(tmp_path, "e", "o", "p")
    assert (store.states.get(b"SKU/o-1") is not None) is kept
    store.close()


def test_what_is_remembered_outlives_what_can_be_repeated() -> None:
    """A repetition may be sent at the last moment that is promised, and wait in the log to its last."""
    table = {spec.name: spec.config for spec in Topics("t", 1).specs()}
    for aggregate in topics.AGGREGATES:
        commands = table[f"t.{aggregate}.commands"]
        outcomes = table[f"t.{aggregate}.outcomes"]
        waits = int(commands["retention.ms"]) + int(commands["segment.ms"]) + topics.BROKER_LAG_MS
        assert topics.IDEMPOTENCY_WINDOW_MS >= 2 * DAY_MS
        assert int(outcomes["retention.ms"]) >= topics.IDEMPOTENCY_WINDOW_MS + waits


def test_what_expires_goes_by_the_brokers_time_and_in_small_segments() -> None:
    for spec in Topics("t", 1).specs():
        kept = int(spec.config.get("retention.ms", "-1"))
        if kept > 0:
            assert spec.config["message.timestamp.type"] == "LogAppendTime", spec.name
            assert int(spec.config["segment.ms"]) <= kept / 2, spec.name
            assert spec.config["retention.bytes"] == "-1", spec.name


class Admin:
    """Answers where partitions begin, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict[Any, Future[Any]]] = []

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        self.asked.append({at: Future() for at in asked})
        return self.asked[-1]


class At:
    def __init__(self, offset: int) -> None:
        self.offset = offset


def test_a_running_processor_follows_the_log_start_and_waits_for_nothing(tmp_path: Path) -> None:
    admin, copy = Admin(), opened(tmp_path)
    expiry = Expiry(admin, every_s=0.0)  # type: ignore[arg-type]
    for number in range(1, 6):
        copy.write({b"o/%d" % number: b"x"}, 2 * number)
    copies = {("t.order.outcomes", 0): copy}

    assert expiry.due()
    expiry.step(copies)
    expiry.step(copies)  # no answer yet
    assert len(admin.asked) == 1
    for future in admin.asked[0].values():
        future.set_result(At(6))
    for _ in range(10):
        expiry.step(copies)
    assert [copy.get(b"o/%d" % n) for n in range(1, 6)] == [None, None, None, b"x", b"x"]
    copy.close()
