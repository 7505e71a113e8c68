"""The views without a Redis: the same questions, the same answers as the straightforward fold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodels.memory import MemoryRedis, UnknownCommand
from readmodels.queries import Asking
from schemas.money import MAX_AMOUNT
from tests.support import events
from tests.support.events import Record
from tests.support.memory_views import PREFIX, filled
from tests.support.view_histories import histories, late_and_repeated
from tests.support.views import differences, reference_of


@given(logs=histories(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_store_in_memory_answers_what_the_reference_answers(
    logs: list[list[Record]], data: st.DataObject
) -> None:
    records = [record for log in logs for record in log]
    again = data.draw(st.integers(0, len(logs[0])))
    store = filled([*logs[0], *logs[0][again:], *logs[1]])

    assert differences(Asking(store, PREFIX), reference_of(records)) == []


@given(records=late_and_repeated())
@settings(deadline=None)
def test_late_and_repeated_records_change_nothing(
    records: tuple[list[Record], list[Record]],
) -> None:
    written, brought = records

    assert differences(Asking(filled(brought), PREFIX), reference_of(written)) == []


def test_sums_are_exact_beyond_64_bits() -> None:
    orders = [events.order(f"o-{n}", 1, user="rich", total=MAX_AMOUNT) for n in range(1_200)]

    rich = Asking(filled(orders), PREFIX).user("rich")

    assert rich is not None
    assert rich.spent == {"EUR": 1_200 * MAX_AMOUNT}


def test_a_command_that_it_does_not_know_is_named() -> None:
    with pytest.raises(UnknownCommand, match="LPUSH"):
        MemoryRedis().run([("LPUSH", "key", "value")])
