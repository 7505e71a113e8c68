"""Where a processor begins: nothing undecided is passed over, and where nothing is lost it goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.starts import Begin, Evidence, Missing, Remade, Shortened, Unknown, explain, start

offsets = st.integers(0, 40)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Evidence, int]:
    """A partition with its evidence, and up to where commands really were decided."""
    end = draw(offsets)
    truly = draw(st.integers(0, end))
    first = draw(st.integers(0, end))
    committed = draw(st.none() | st.just(truly))
    noted = draw(st.none() | st.integers(0, truly))  # a note may lag behind
    evidence = Evidence(
        committed=committed,
        noted=noted,
        noted_of_another=False,
        anything_decided=truly > 0,
        first=first,
        end=end,
        recognised_from=draw(st.sampled_from([0, first, end])),
    )
    return evidence, truly


@given(histories())
def test_nothing_undecided_is_passed_over_in_silence(history: tuple[Evidence, int]) -> None:
    evidence, truly = history
    found = start(evidence)
    if isinstance(found, Begin):
        assert found.offset <= truly
        assert evidence.first <= found.offset
    elif isinstance(found, Missing):
        assert found.decided <= truly
        assert found.first == evidence.first


@given(histories())
def test_where_the_groups_offset_is_in_the_log_it_counts(history: tuple[Evidence, int]) -> None:
    evidence, _ = history
    if evidence.committed is not None and evidence.committed >= evidence.first:
        assert start(evidence) == Begin(evidence.committed)


@given(histories())
def test_a_processor_that_knows_goes_on_where_nothing_is_lost(
    history: tuple[Evidence, int],
) -> None:
    evidence, truly = history
    knows = truly in (evidence.committed, evidence.noted)
    if knows and truly >= evidence.first:
        assert isinstance(start(evidence), Begin)


def evidence(**known: object) -> Evidence:
    found: dict[str, object] = {
        "committed": None,
        "noted": None,
        "noted_of_another": False,
        "anything_decided": True,
        "first": 0,
        "end": 10,
        "recognised_from": 0,
    }
    return Evidence(**(found | known))  # type: ignore[arg-type]


def test_each_loss_is_told_with_its_figures() -> None:
    for known, expected, words in (
        (evidence(committed=3, first=5), Missing(3, 5), "2 offsets are missing"),
        (evidence(committed=30), Shortened(30, 10), "the log ends at 10"),
        (evidence(noted_of_another=True), Remade(), "recreated"),
        (evidence(first=5), Unknown(5), "begins at 5"),
        (evidence(recognised_from=2), Unknown(0), "may not be recognised"),
    ):
        found = start(known)
        assert found == expected
        assert not isinstance(found, Begin)
        assert words in explain("t-0", found)


def test_an_offset_that_an_operator_set_back_counts_more_than_the_note() -> None:
    assert start(evidence(committed=2, noted=9)) == Begin(2)
