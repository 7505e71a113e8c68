"""What the benchmarks make of their measurements: percentiles, rates, medians, and which goals they reach."""

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.__main__ import run
from benchmarks.bench import Bench, Found
from benchmarks.curves import Curve, Reading, cost, rate, reading_at
from benchmarks.goals import GOALS, Goal, judge
from benchmarks.kafka_streams import LOCK
from benchmarks.parts import PARTS, Part
from benchmarks.plots import draw
from benchmarks.report import Result, as_json
from benchmarks.summary import (
    MARKS,
    Spread,
    distribution,
    middle_curve,
    percentile,
    percentiles,
    spreads,
)
from runtime.embedded.jars import KAFKA, LOCK_FILE, parse_lock

VALUES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50)


def test_a_percentile_lies_on_the_line_between_its_neighbours() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 0) == 1.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 100) == 4.0
    assert percentile([7.0], 99) == 7.0


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_percentiles_of_seconds_are_milliseconds() -> None:
    assert percentiles([n / 1000 for n in range(101)]) == pytest.approx(
        {"p50 ms": 50.0, "p99 ms": 99.0}
    )


@given(VALUES)
def test_a_distribution_never_falls_and_begins_with_the_fastest(values: list[float]) -> None:
    points = distribution(values)
    assert [mark for mark, _ in points] == list(MARKS)
    heights = [ms for _, ms in points]
    assert heights[0] == min(values) * 1000
    # Straight lines between equal neighbours are equal but for the last bit.
    assert all(high >= low * (1 - 1e-12) for low, high in pairwise(heights))
    assert heights[-1] <= max(values) * 1000 * (1 + 1e-12)


def test_a_figure_has_the_median_and_the_range_of_its_rounds() -> None:
    found = spreads([{"a": 3.0, "b": 1.0}, {"a": 1.0}, {"a": 2.0, "c": 5.0}])
    assert list(found.items()) == [
        ("a", Spread(2.0, 1.0, 3.0)),
        ("b", Spread(1.0, 1.0, 1.0)),
        ("c", Spread(5.0, 5.0, 5.0)),
    ]


def test_of_no_rounds_there_are_no_figures() -> None:
    assert spreads([]) == {}


def test_a_curve_goes_through_the_middle_of_its_rounds() -> None:
    rounds = [[(50.0, 1.0), (99.0, 9.0)], [(50.0, 3.0), (99.0, 7.0)], [(50.0, 2.0), (99.0, 8.0)]]
    assert middle_curve(rounds) == [(50.0, 2.0), (99.0, 8.0)]


CURVE: Curve = [Reading(10.0, 100, 1.0), Reading(11.0, 300, 1.002), Reading(13.0, 500, 1.006)]


def test_a_rate_runs_from_the_first_reading_to_the_last() -> None:
    assert rate(CURVE) == pytest.approx(400 / 3)


def test_a_rate_between_two_numbers_takes_the_straight_line_between_readings() -> None:
    assert reading_at(CURVE, 200) == pytest.approx(Reading(10.5, 200, 1.001))
    assert reading_at(CURVE, 400) == pytest.approx(Reading(12.0, 400, 1.004))
    assert rate(CURVE, 200, 400) == pytest.approx(200 / 1.5)


def test_a_cost_is_microseconds_of_a_core_for_each() -> None:
    assert cost(CURVE, 200, 400) == pytest.approx(15.0)


def test_a_rate_does_not_begin_before_the_first_reading() -> None:
    assert rate(CURVE, 0, 300) == pytest.approx(200.0)


@pytest.mark.parametrize("number", [99, 501])
def test_what_is_not_on_the_curve_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="not on the curve"):
        reading_at(CURVE, number)


def test_one_reading_has_no_rate() -> None:
    with pytest.raises(ValueError, match="no time"):
        rate(CURVE[:1])


LOW = Goal("one", "ratio", at_least=0.5)
HIGH = Goal("one", "ms", at_most=10)


def test_goals_are_judged_by_the_median_and_include_their_bound() -> None:
    found = {"one": {"ratio": Spread(0.5, 0.1, 0.9), "ms": Spread(10.1, 1.0, 20.0)}}
    assert [verdict.reached for verdict in judge(found, [LOW, HIGH])] == [True, False]


def test_a_goal_without_its_figure_is_neither_reached_nor_missed() -> None:
    assert [verdict.reached for verdict in judge({"one": {}}, [LOW])] == [None]


def test_a_part_that_did_not_run_is_not_judged() -> None:
    assert judge({"two": {}}, [LOW]) == []


def test_a_goal_says_its_bound() -> None:
    assert [str(goal) for goal in (LOW, HIGH)] == ["≥ 0.5", "≤ 10"]


def test_every_goal_is_of_a_part_and_has_a_bound() -> None:
    assert {goal.part for goal in GOALS} <= PARTS.keys()
    assert all(goal.at_least is not None or goal.at_most is not None for goal in GOALS)


def test_kafka_streams_is_of_the_broker_s_release_and_shares_its_other_jars() -> None:
    versions = {jar.artifact: jar.version for jar in parse_lock(LOCK.read_text())}
    assert versions["kafka-streams"] == KAFKA.rpartition(":")[2]
    assert not versions.keys() & {jar.artifact for jar in parse_lock(LOCK_FILE.read_text())}


def test_a_part_that_fails_keeps_its_rounds_and_says_why(tmp_path: Path) -> None:
    def figures(bench: Bench) -> Found:
        if bench.turn == 1:
            raise RuntimeError("the broker is gone")
        return Found({"rate": 7.0})

    said = io.StringIO()
    bench = Bench({}, tmp_path, commands=1, seconds=1.0)
    result = run("processing", Part(figures), bench, 3, Console(file=said))
    assert [found.figures for found in result.rounds] == [{"rate": 7.0}]
    assert result.error == "RuntimeError: the broker is gone"
    assert "the broker is gone" in said.getvalue()
    told = json.loads(json.dumps(as_json({"processing": result})))["parts"]["processing"]
    assert told["error"] == result.error
    assert told["figures"] == {"rate": {"median": 7.0, "lowest": 7.0, "highest": 7.0}}


def test_the_same_figures_make_the_same_plots_and_parts_that_did_not_run_none(
    tmp_path: Path,
) -> None:
    found = Found({"processor, commands/s": 5.0, "bare loop, commands/s": 9.0})
    results = {"processing": Result([found, found]), "memory": Result(error="failed")}
    first, again = (draw(results, tmp_path / name) for name in ("first", "again"))
    assert [path.name for path in first] == ["throughput.svg"]
    assert first[0].read_bytes() == again[0].read_bytes()
    assert b"bare loop" in first[0].read_bytes()
