"""Verification over generated histories: it never calls right what is wrong, nor wrong what only moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import hypothesis.strategies as st
import msgspec
from hypothesis import assume, given, settings

from readmodels import stock
from readmodels.documents import Pieces
from readmodels.lookup import Found
from readmodels.order_mending import totals
from readmodels.records import Change, fold
from schemas.inventory import Reservation, StockLevel
from schemas.order import OrderStatus
from tests.support.saga_laws import cut_of, drifts
from tests.support.saga_stories import drain, order, shop
from verification import Kind, Level
from verification.judging import Verdict, judge
from verification.sampling import Sample

expected: Final = stock.COLLECTION.expected
NOON_MS: Final = 1_700_000_000_000


def row_of(version: int, on_hand: int) -> Any:
    """What a stock level at this version makes of the view."""
    level = StockLevel("x", 3, on_hand, 0, on_hand, 0, 0, NOON_MS + version)
    return stock.project("s", version, msgspec.json.encode(level))


@st.composite
def logs(draw: st.DrawFn) -> list[Found]:
    """All records of one aggregate, with the offsets of others between them: changes and deletions."""
    offset, records = 0, []
    for version in range(1, 1 + draw(st.integers(0, 8))):
        offset += draw(st.integers(1, 3))
        row = None if draw(st.integers(0, 4)) == 0 else row_of(version, draw(st.integers(0, 9)))
        records.append(Found(offset, Change("s", version, row)))
    return records


def state_at(records: Sequence[Found], position: int) -> Pieces:
    """What the view says when it is there."""
    folded = fold(one.change for one in records if one.offset < position)
    return expected(folded[0].row if folded else None)


@given(records=logs(), data=st.data())
def test_a_view_that_only_moves_is_never_called_wrong(
    records: list[Found], data: st.DataObject
) -> None:
    """It may be further than it says, and the cleaner may have removed all but the newest record."""
    end = records[-1].offset + 1 if records else 0
    applied = data.draw(st.integers(0, end))
    stands = state_at(records, data.draw(st.integers(applied, end)))
    kept = [one for one in records[:-1] if data.draw(st.booleans())] + records[-1:]
    assert judge(stands, applied, kept, expected)[0] is not Verdict.WRONG
    assert judge(stands, applied, records, expected) == (Verdict.RIGHT, stands)


@given(records=logs(), other=st.integers(0, 9), data=st.data())
def test_a_view_that_stands_still_is_right_or_wrong(
    records: list[Found], other: int, data: st.DataObject
) -> None:
    end = records[-1].offset + 1 if records else 0
    right = state_at(records, end)
    kept = [one for one in records[:-1] if data.draw(st.booleans())] + records[-1:]
    assert judge(right, end, kept, expected) == (Verdict.RIGHT, right)
    wrong = data.draw(
        st.sampled_from(
            [
                expected(None),
                expected(row_of(1 + other % 8, other)),
                {**right, "score": 77.0},
                {**right, "row": {**(right["row"] or {}), "x": "y"}},
            ]
        )
    )
    assume(wrong != right)
    assert judge(wrong, end, kept, expected) == (Verdict.WRONG, right)


@given(records=logs(), data=st.data())
def test_a_version_that_never_was_is_wrong_even_while_the_view_moves(
    records: list[Found], data: st.DataObject
) -> None:
    assume(records)
    applied = data.draw(st.integers(0, records[-1].offset))
    impossible = expected(row_of(records[-1].change.version or 0, 99))
    assume(impossible != expected(records[-1].change.row))
    assume(records[-1].change.row is not None)
    assert judge(impossible, applied, records, expected)[0] is Verdict.WRONG
    never = expected(row_of(99, 1))
    assert judge(never, applied, records, expected)[0] is Verdict.WRONG


rows = st.fixed_dictionaries(
    {
        "version": st.just("1"),
        "status": st.sampled_from([status.value for status in OrderStatus]),
        "spent": st.integers(0, 2**70).map(str),
        "currency": st.sampled_from(["EUR", "USD"]),
        "listed": st.integers(0, 9).map(str),
    }
)


@given(st.lists(rows, max_size=12))
def test_totals_are_the_sums_of_the_contributions(found: list[dict[str, str]]) -> None:
    one = totals(found)
    assert int(one.sums.get("orders", 0)) == len(found)
    for currency in ("EUR", "USD"):
        spent = sum(int(row["spent"]) for row in found if row["currency"] == currency)
        assert one.sums.get(f"spent:{currency}") == (str(spent) if spent else None)
        assert one.spent.get(currency) == (str(spent) if spent else None)
    assert one.is_same(totals(list(reversed(found))))
    if found:
        assert not one.is_same(totals(found[1:]))


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 9), st.randoms())
def test_a_sample_is_the_same_in_whatever_order_ids_come(
    ids: list[str], size: int, random: Any
) -> None:
    first, second = Sample(size, b"salt"), Sample(size, b"salt")
    first.offer(ids)
    random.shuffle(ids)
    second.offer(ids)
    assert first.ids == second.ids
    assert len(first.ids) == min(size, len(ids))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(["tok_approve", "tok_decline", "tok_slow_0"]), max_size=4), st.data()
)
def test_damaged_states_and_histories_are_found(tokens: list[str], data: st.DataObject) -> None:
    world = shop()
    for number, token in enumerate(tokens):
        world.place(f"o-{number}", **order(token))
    drain(world)
    assert drifts(world) == []

    cut = cut_of(world)
    name = data.draw(st.sampled_from([n for n, states in cut.items() if states.roots]))
    states = cut[name]
    identity = data.draw(st.sampled_from(sorted(states.roots)))
    version, root = states.roots[identity]
    match data.draw(st.sampled_from(["lost", "changed", "newer", "part"])):
        case "lost":
            del states.roots[identity]
            kinds = {Kind.MISSING}
        case "changed":
            states.roots[identity] = version, msgspec.structs.replace(root, updated_at_ms=1)
            kinds = {Kind.DIFFERENT}
        case "newer":
            states.roots[identity] = version + 1, root
            kinds = {Kind.GAP}
        case _:
            name, identity = "inventory", "A"
            cut[name].parts.setdefault("A", {})["nobody"] = Reservation("nobody", 1, 1)
            kinds = {Kind.DIFFERENT}
    found = drifts(world, cut)
    of_states = {one.kind for one in found if one.level is Level.STATE and one.key == identity}
    assert of_states == kinds
    if (
        name == "inventory"
        and kinds == {Kind.DIFFERENT}
        and "nobody" in cut[name].parts.get("A", ())
    ):
        assert any(one.level is Level.LAW for one in found)


def test_a_user_whose_rows_are_damaged_still_has_totals() -> None:
    damaged = [{"version": "1", "status": "created", "spent": "much", "listed": "x"}]
    assert totals(damaged).sums == {"orders": "1", "status:created": "1"}
