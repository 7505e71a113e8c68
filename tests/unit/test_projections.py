"""What the views make of one record, without any server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from readmodels import orders, sagas, stock, users
from readmodels.keys import BUCKETS, KINDS, Keys, bucket_of, document_keys
from readmodels.records import Change, Unreadable, fold, read
from readmodels.reference import Reference
from readmodels.scripts import CALL_LIMIT, SCRIPTS, BucketCalls
from readmodels.steps import pairs
from readmodels.views import ORDERS, VIEWS, named
from runtime.redis import pack
from schemas.order import OrderStatus
from schemas.saga import ENDED, SagaStatus
from tests.support import events
from tests.support.events import Record

ROOT = Path(__file__).parents[2]


def change_of(record: Record, project: Any) -> Any:
    (states,) = [view.states for view in VIEWS if view.project is project]
    return read(record.key_bytes, record.value, record.headers, states, project)


def test_an_order_becomes_fields_that_a_person_can_read() -> None:
    change = change_of(events.order("o-1", 3, user="u-1", total=250), orders.project)

    row = pairs(change.row.fields)

    assert (change.id, change.version) == ("o-1", 3)
    assert row["status"] == "created"
    assert row["total"] == row["spent"] == "250"
    assert msgspec.json.decode(row["lines"]) == [{"sku": "SKU-1", "quantity": 1, "unit_price": 250}]


def test_a_cancelled_order_counts_but_nothing_of_it_is_spent() -> None:
    cancelled = events.order("o-1", 2, status=OrderStatus.CANCELLED, total=250)
    row = change_of(cancelled, orders.project).row
    assert (row.status, row.spent) == ("cancelled", 0)
    assert pairs(row.fields)["total"] == "250"


def test_orders_are_listed_by_time_and_then_by_id() -> None:
    members = [orders.list_member(ms, i) for ms, i in [(99, "z"), (100, "a"), (100, "b")]]
    assert sorted(members) == members


@pytest.mark.parametrize(
    ("on_hand", "reserved", "score"), [(10, 6, None), (10, 7, 3), (10, 10, 0), (3, 0, 3)]
)
def test_stock_is_low_at_its_threshold(on_hand: int, reserved: int, score: int | None) -> None:
    level = events.stock("s-1", 1, on_hand=on_hand, reserved=reserved, threshold=3)
    assert change_of(level, stock.project).row.score == score


def test_a_saga_is_ranked_by_its_status_and_then_by_its_last_change() -> None:
    def score(status: SagaStatus, moved: int) -> int:
        row = change_of(events.saga("s", 1, status=status, moved=moved), sagas.project).row
        assert isinstance(row.score, int)
        return row.score

    stuck = score(SagaStatus.NEEDS_OPERATOR, 9)
    old, new = score(SagaStatus.RUNNING, 1), score(SagaStatus.RUNNING, 2)
    assert stuck < old < new < score(SagaStatus.COMPLETED, 0)
    assert float(new) - float(old) == 1


def test_a_sagas_answers_are_counted() -> None:
    saga = change_of(events.saga("s", 1, answers="++=-Ab"), sagas.project)
    (step,) = json.loads(pairs(saga.row.fields)["steps"])
    assert (step["commands"], step["accepted"], step["refused"]) == (6, 3, 1)


def test_a_sagas_answers_to_its_undoing_are_counted_without_what_needs_none() -> None:
    saga = change_of(events.saga("s", 1, answers="Aa+-", undo_answers="+=-A a"), sagas.project)
    (step,) = json.loads(pairs(saga.row.fields)["steps"])
    assert step["waiting"] == 2
    assert (step["undo_commands"], step["undone"], step["undo_refused"]) == (5, 2, 1)


def test_a_saga_without_a_correlation_id_has_its_own() -> None:
    alone = change_of(events.saga("s", 1), sagas.project)
    assert pairs(alone.row.fields)["correlation_id"] == "s"
    part = change_of(events.saga("s", 1, correlation_id="c-1"), sagas.project)
    assert pairs(part.row.fields)["correlation_id"] == "c-1"


def test_a_saga_of_an_impossible_time_is_in_no_ranking() -> None:
    for moved in (-events.NOON_MS - 1, sagas.TIME_LIMIT_MS - events.NOON_MS):
        with pytest.raises(Unreadable, match="out of range"):
            change_of(events.saga("s", 1, moved=moved), sagas.project)


def test_one_range_has_the_sagas_that_have_not_ended_and_no_others() -> None:
    low, high = sagas.scores_of(sagas.asked_for(None))
    for status in SagaStatus:
        for moved in (-events.NOON_MS, sagas.SPAN_MS - 1 - events.NOON_MS):
            row = change_of(events.saga("s", 1, status=status, moved=moved), sagas.project).row
            assert (low <= row.score <= high) == (status not in ENDED)


def test_an_unknown_status_is_named() -> None:
    with pytest.raises(ValueError, match="no status 'lost'; there are: needs_operator, comp"):
        sagas.asked_for("lost")


def test_a_user_without_an_address_has_no_such_field() -> None:
    assert "email" not in pairs(change_of(events.user("u", 1), users.project).row.fields)
    with_address = change_of(events.user("u", 1, email="a@b.c"), users.project)
    assert pairs(with_address.row.fields)["email"] == "a@b.c"


def test_parts_of_an_aggregate_are_no_matter_of_a_view() -> None:
    assert change_of(Record("inventory", "s-1/r-1", b"whatever"), stock.project) is None
    assert change_of(Record("inventory", "s-1/r-1", None), stock.project) is None


def test_a_tombstone_is_a_deletion_at_its_headers_version() -> None:
    assert change_of(events.tombstone("order", "o-1", 7), orders.project) == Change("o-1", 7, None)
    unversioned = change_of(events.tombstone("order", "o-1", None), orders.project)
    assert unversioned == Change("o-1", None, None, reset=True)
    garbled = Record("order", "o-1", None, (("aggregate-version", b"\xff"),))
    assert change_of(garbled, orders.project).reset


GOOD = events.order("o-1", 1).value or b""


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (None, GOOD, "invalid_key"),
        (b"\xff", GOOD, "invalid_key"),
        (b"a{b}", GOOD, "invalid_key"),
        (b"", GOOD, "invalid_key"),
        (b"o-1", b"", "malformed"),
        (b"o-1", b"\xff", "malformed"),
        (b"o-1", b"[]", "malformed"),
        (b"o-1", GOOD.replace(b'"version":1', b'"version":0'), "malformed"),
        (b"o-1", GOOD.replace(b'"version":1', b'"version":9007199254740992'), "malformed"),
        (b"o-1", GOOD.replace(b'"EUR"', b'"{x}"'), "malformed"),
        (b"o-1", GOOD.replace(b'"u-1"', b'"u{1}"'), "malformed"),
        (b"o-1", GOOD.replace(b'"total":1000', b'"total":-1'), "malformed"),
        (b"o-1", GOOD.replace(b'"created"', b'"lost"'), "malformed"),
        (
            b"o-1",
            GOOD.replace(b',"state"', b',"state_version":2,"state"'),
            "unsupported_schema_version",
        ),
    ],
)
def test_what_cannot_be_read_says_why(key: bytes | None, value: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(key, value, (), ORDERS.states, orders.project)
    assert caught.value.code == code


def test_a_bug_in_a_projection_is_told_from_a_bad_record() -> None:
    def buggy(_id: str, _version: int, _state: bytes) -> str:
        raise ZeroDivisionError

    with pytest.raises(Unreadable) as caught:
        read(b"o-1", GOOD, (), ORDERS.states, buggy)
    assert (caught.value.code, caught.value.stage) == ("internal_error", "project")


@pytest.mark.parametrize(
    ("changes", "folded"),
    [
        ([Change("a", 1, "x"), Change("a", 2, "y")], Change("a", 2, "y")),
        ([Change("a", 2, "y"), Change("a", 1, "x")], Change("a", 2, "y")),
        ([Change("a", 2, "y"), Change("a", 2, None)], Change("a", 2, None)),
        ([Change("a", 2, None), Change("a", 2, "y")], Change("a", 2, None)),
        ([Change("a", 2, None), Change("a", 3, "z")], Change("a", 3, "z")),
        (
            [Change("a", 9, "x"), Change("a", None, None, reset=True), Change("a", 1, "y")],
            Change("a", 1, "y", reset=True),
        ),
    ],
)
def test_changes_fold_into_one_with_the_same_effect(
    changes: list[Change[str]], folded: Change[str]
) -> None:
    assert fold([*changes, Change("b", 1, "other")]) == [folded, Change("b", 1, "other")]


def test_the_reference_forgets_at_an_unversioned_tombstone() -> None:
    reference = Reference()
    for record in (events.order("o-1", 5), events.tombstone("order", "o-1", None)):
        reference.record(record.aggregate, record.key_bytes, record.value, record.headers)
    assert reference.orders() == {}
    again = events.order("o-1", 1)
    reference.record("order", again.key_bytes, again.value)
    assert reference.orders()["o-1"].version == 1


def test_buckets_are_the_same_everywhere() -> None:
    assert [bucket_of(i) for i in ("u-1", "u-2", "ü")] == [12, 6, 5]
    assert {bucket_of(f"u-{n}") for n in range(1_000)} == set(range(BUCKETS))


def test_every_key_of_one_call_has_the_same_hash_tag() -> None:
    keys = Keys("p", "orders", 3)
    wanted = [c for n in range(200) if (c := change_of(events.order(f"o-{n}", 1), orders.project))]
    steps = orders.apply(keys, wanted)
    request: Any = next(steps)
    for _ in range(2):
        for _name, _sha, count, *rest in request:
            tags = {key.partition("{")[2].partition("}")[0] for key in rest[:count]}
            assert len(tags) == 1
            assert all(key.startswith(keys.stem) for key in rest[:count])
            assert all(keys.kind_of(key) for key in rest[:count])
        try:
            request = steps.send([[]] * len(request))
        except StopIteration:
            break


def test_a_call_has_a_limit() -> None:
    calls = BucketCalls()
    for number in range(CALL_LIMIT + 1):
        calls.of(1).add(str(number))
    assert [len(call.ids) for call in calls.calls] == [CALL_LIMIT, 1]


def test_commands_are_packed_as_redis_reads_them() -> None:
    assert pack([("SET", "ü", 1), ("GET", b"\r\n")]) == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"
    )


def test_every_kind_belongs_to_a_view_and_every_script_says_what_it_wants() -> None:
    assert {kind.view for kind in KINDS} == {view.name for view in VIEWS}
    for script in SCRIPTS:
        own = (ROOT / f"readmodels/lua/{script.name}.lua").read_text(encoding="utf-8")
        assert own.startswith("-- ")
        assert "KEYS" in own.split("local")[0]
        assert script.text.endswith(own)


def test_an_unknown_view_is_named() -> None:
    with pytest.raises(ValueError, match="no view 'nope'; there are: orders, stock, users"):
        named(["nope"])


def test_the_document_of_the_keys_is_the_table_in_the_code() -> None:
    assert (ROOT / "docs/REDIS_KEYS.md").read_text(encoding="utf-8") == document_keys()
