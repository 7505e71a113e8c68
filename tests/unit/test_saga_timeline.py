"""How `orderflow sagas show` tells what happened in a saga, without any server."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from orderflow.cli.sagas import show_timeline
from readmodels import SagaAnswer, SagaStepAnswer
from tests.support.events import NOON_MS

RESERVED = SagaStepAnswer("reserve", "completed", 2, 2, 0, 1, NOON_MS, NOON_MS + 250)


def pay(status: str, accepted: int, **more: Any) -> SagaStepAnswer:
    return SagaStepAnswer("pay", status, 1, accepted, 0, 3, NOON_MS + 250, **more)


def saga(status: str, *steps: SagaStepAnswer, **more: Any) -> SagaAnswer:
    return SagaAnswer("o-1", 7, "create_order", status, "o-1", NOON_MS, NOON_MS + 9, steps, **more)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """A saga's timeline: what stands above the table, and the cells of its rows."""

    def show(one: SagaAnswer) -> tuple[list[str], list[list[str]]]:
        show_timeline(one)
        lines = capsys.readouterr().out.splitlines()
        above = lines[: next(n for n, line in enumerate(lines) if line.startswith("since"))]
        rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
        return above, [[cell.strip() for cell in row] for row in rows]

    return show


def test_a_step_has_a_line_for_its_start_and_one_for_its_end(shown: Any) -> None:
    above, rows = shown(saga("completed", RESERVED))
    assert above == ["saga o-1 (create_order): completed"]
    assert rows == [
        ["+0.000 s", "reserve", "started", "", "2 commands"],
        ["+0.250 s", "reserve", "completed", "0.250 s", "2 of 2 accepted"],
    ]


def test_a_step_that_waits_says_how_often_it_has_asked_and_why(shown: Any) -> None:
    waiting = pay("running", 0, code="internal_error", message="a [bug]")
    above, rows = shown(saga("running", RESERVED, waiting, wakes_at_ms=NOON_MS + 60_000))
    assert above[1] == "goes on by itself at 2023-11-14 22:14:20 UTC, unless an answer comes before"
    how = "0 of 1 accepted, asked 3 times; internal_error: a [bug]"
    assert rows[-1] == ["+0.250 s", "pay", "started", "", how]


def test_what_is_undone_is_told_backwards(shown: Any) -> None:
    undo: dict[str, Any] = {"undo_commands": 1, "undone": 1, "undo_attempt": 1}
    undo |= {"undo_started_at_ms": NOON_MS + 500, "undo_ended_at_ms": NOON_MS + 500}
    first = replace(RESERVED, **undo)
    failed = pay("compensated", 0, ended_at_ms=NOON_MS + 500, code="declined", message="no", **undo)
    above, rows = shown(saga("compensated", first, failed, code="declined", message="no"))
    assert above == ["saga o-1 (create_order): compensated, declined: no"]
    assert rows[3] == [
        "+0.500 s", "pay", "failed", "0.250 s", "0 of 1 accepted, asked 3 times; declined: no",
    ]  # fmt: skip
    assert [row[1:3] for row in rows[4:]] == [
        ["pay", "undoing"],
        ["pay", "undone"],
        ["reserve", "undoing"],
        ["reserve", "undone"],
    ]


def test_what_could_not_be_undone_says_why_there_and_nowhere_else(shown: Any) -> None:
    stuck = pay(
        "not_compensated", 0, ended_at_ms=NOON_MS + 500, code="timed_out", message="no answer",
        undo_commands=1, undo_refused=1, undo_attempt=6,
        undo_started_at_ms=NOON_MS + 500, undo_ended_at_ms=NOON_MS + 900,
    )  # fmt: skip
    above, rows = shown(
        saga("compensated", stuck, code="declined", message="no", resolved_by="ann")
    )
    assert above[-1] == "put right by hand, says ann"
    assert rows[-3][4] == "0 of 1 accepted, asked 3 times"
    how = "0 of 1 undone, asked 6 times; timed_out: no answer"
    assert rows[-1] == ["+0.900 s", "pay", "not undone", "0.400 s", how]


def test_an_undoing_that_waits_says_how_often_it_has_asked(shown: Any) -> None:
    undoing = pay(
        "compensating", 1, ended_at_ms=NOON_MS + 500,
        undo_commands=2, undone=1, undo_attempt=2, undo_started_at_ms=NOON_MS + 600,
    )  # fmt: skip
    _, rows = shown(saga("compensating", undoing))
    assert rows[-1] == ["+0.600 s", "pay", "undoing", "", "1 of 2 undone, asked 2 times"]


def test_another_correlation_id_is_shown(shown: Any) -> None:
    above, _ = shown(SagaAnswer("o-1:user", 1, "u", "running", "o-1", NOON_MS, NOON_MS, ()))
    assert above[1] == "correlation id o-1"
