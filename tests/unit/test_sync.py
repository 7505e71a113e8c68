"""Synchronisation by polling, its pure parts: what to do next, where a page ends, what a row becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from sync.cursor import Follow, Identity, OtherTopics, Pass, Seen, Stand, Wait, plan, whole_stamps
from sync.rows import ORDER, SAGA, SKU, SUMS, USER, NoRow, rows_of
from sync.tables import METADATA, SYNC_TARGET
from sync.target import Overtaken, Rows, Target, TargetUnfit, address, shown

HERE = Identity(1, "born-1", "server-1")
SEEN = Seen(HERE, {"t.order.events:0": 9}, {"t.order.events": "id-1"}, [100, 0], [0, 0])
COMPLETE = Stand(
    revision=5,
    number=1,
    identity=HERE,
    covered={"t.order.events:0": 9},
    topics={"t.order.events": "id-1"},
    cursors={0: 90},
)


def test_what_has_changed_is_read_while_all_is_as_it_was() -> None:
    assert plan(COMPLETE, SEEN) == Follow()


def test_an_empty_target_is_filled() -> None:
    assert plan(Stand(), SEEN) == Pass("first")


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (replace(HERE, generation=2), "rebuilt"),
        (replace(HERE, born="born-2"), "refilled"),
        (replace(HERE, server="server-2"), "other_server"),
    ],
)
def test_cursors_of_another_filling_lead_to_a_pass(identity: Identity, reason: str) -> None:
    assert plan(COMPLETE, replace(SEEN, identity=identity)) == Pass(reason)  # type: ignore[arg-type]


def test_a_pass_that_was_broken_off_is_begun_again() -> None:
    assert plan(replace(COMPLETE, filling=True), SEEN) == Pass("broken_off")


def test_a_cursor_before_forgotten_deletions_leads_to_a_pass() -> None:
    assert plan(COMPLETE, replace(SEEN, horizon=[90, 0])) == Follow()
    assert plan(COMPLETE, replace(SEEN, horizon=[91, 0])) == Pass("too_old")
    assert plan(COMPLETE, replace(SEEN, horizon=[0, 1])) == Pass("too_old")


def test_nothing_is_done_while_redis_has_no_such_view() -> None:
    assert isinstance(plan(COMPLETE, replace(SEEN, positions={}, topics={})), Wait)
    assert isinstance(plan(Stand(), replace(SEEN, positions={}, topics={})), Wait)


@pytest.mark.parametrize("positions", [{"t.order.events:0": 8}, {"t.order.events:1": 20}])
def test_an_emptied_view_does_not_empty_the_target(positions: dict[str, int]) -> None:
    emptied = replace(SEEN, identity=replace(HERE, born="born-2"), positions=positions)
    answer = plan(COMPLETE, emptied)
    assert isinstance(answer, Wait)
    assert "t.order.events:0" in answer.why
    assert plan(replace(COMPLETE, filling=True), emptied) == answer


def test_offsets_of_another_topic_are_not_compared() -> None:
    with pytest.raises(OtherTopics, match=r"t\.order\.events was deleted"):
        plan(COMPLETE, replace(SEEN, topics={"t.order.events": "id-2"}))
    assert plan(COMPLETE, replace(SEEN, topics={})) == Follow()


@given(st.data())
def test_pages_that_end_with_whole_stamps_leave_no_row_out(data: st.DataObject) -> None:
    stamps = data.draw(st.lists(st.integers(1, 6), max_size=30))
    bucket = sorted((stamp, f"row-{number}") for number, stamp in enumerate(stamps))
    size = data.draw(st.integers(1, 5))
    read: list[str] = []
    cursor = 0
    while True:
        later = [(id_, stamp) for stamp, id_ in bucket if stamp > cursor]
        page = later[:size]
        rest = [one for one in later if page and one[1] == page[-1][1]]
        ids, stamp = whole_stamps(page, rest)
        if stamp is None:
            break
        assert stamp > cursor
        read += ids
        cursor = stamp
    assert sorted(read) == sorted(id_ for _, id_ in bucket)


def test_an_order_brings_its_users_sums_with_it() -> None:
    assert rows_of("orders", "ada/o-1") == [(ORDER, "ada/o-1"), (SUMS, "ada")]
    assert rows_of("stock", "TEAPOT") == [(SKU, "TEAPOT")]


def test_an_order_is_named_with_its_owner() -> None:
    assert ORDER.key("ada/o-1") == {"order_id": "o-1", "user_id": "ada"}


def test_a_users_sums_are_columns_and_amounts_are_rows() -> None:
    row, parts = SUMS.values("ada", {"orders": "2", "status:created": "2", "spent:EUR": str(2**70)})
    assert row == {
        "user_id": "ada",
        "orders": 2,
        "created": 2,
        "confirmed": 0,
        "cancelled": 0,
        "shipped": 0,
        "delivered": 0,
    }
    assert parts == [{"user_id": "ada", "currency": "EUR", "spent": 2**70}]


def test_text_that_no_database_holds_is_replaced() -> None:
    fields = {
        "version": "1",
        "status": "active",
        "name": "A\0da",
        "registered_at_ms": "1",
        "updated_at_ms": "2",
    }
    row, _ = USER.values("ada", fields)
    assert row["name"] == "A\N{REPLACEMENT CHARACTER}da"
    assert row["email"] is None
    saga = {"saga": "create_order", "status": "failed", "correlation_id": "c", "version": "1"}
    times = {"started_at_ms": "1", "updated_at_ms": "2"}
    row, _ = SAGA.values("s-1", {**saga, **times, "steps": r'[{"message":"a\u0000"}]'})
    assert row["steps"] == [{"message": "a\N{REPLACEMENT CHARACTER}"}]


@pytest.mark.parametrize("version", [str(2**63), "many", None])
def test_a_row_that_no_table_can_hold_is_named(version: str | None) -> None:
    fields = {} if version is None else {"version": version}
    with pytest.raises(NoRow, match="stock TEAPOT"):
        SKU.values("TEAPOT", fields)
    with pytest.raises(NoRow, match="sagas s-1"):
        SAGA.values("s-1", fields)


def test_the_url_is_written_as_a_person_does_and_shown_without_secrets() -> None:
    url = address("postgresql://ada:se%2Fcret@db.example:5432/views?password=also&sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert url.password == "se/cret"
    assert shown(url) == "postgresql://ada:***@db.example:5432/views"
    assert address("postgres://db/views").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "text", ["mysql://root:hunter2@db/views", "postgresql:hunter2", "hunter2", ""]
)
def test_a_url_that_is_none_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(TargetUnfit) as refused:
        address(text)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/views.db"


def test_whoever_comes_second_changes_nothing(url: str) -> None:
    target = Target(address(url), "p")
    target.prepare()
    read = target.stand("stock")
    row: Any = (SKU, {name: 1 for name in SKU.table.columns.keys() if name != "sync_pass"}, [])  # noqa: SIM118
    first, _ = target.commit("stock", read, replace(read, cursors={3: 7}), Rows([row]))
    assert target.stand("stock") == first
    with pytest.raises(Overtaken):
        target.commit("stock", read, read, Rows(deletes=[(SKU, {"sku": "1"})]))
    assert target.stand("stock") == first
    assert target.commit("stock", first, first, Rows(deletes=[(SKU, {"sku": "1"})]))[1] == 1
    target.close()


def test_tables_of_somebody_else_are_not_touched(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (login TEXT)"))
    with pytest.raises(TargetUnfit, match="did not make: users"):
        Target(address(url), "p").prepare()
    with engine.begin() as connection:
        assert not connection.dialect.has_table(connection, "orders")
    engine.dispose()


@pytest.mark.parametrize(("version", "remedy"), [(99, "update it"), (0, "an empty database")])
def test_tables_of_another_version_are_refused(url: str, version: int, remedy: str) -> None:
    Target(address(url), "p").prepare()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(SYNC_TARGET.update().values(schema_version=version))
    with pytest.raises(TargetUnfit, match=f"version {version}, .*{remedy}"):
        Target(address(url), "p").prepare()
    engine.dispose()


def test_a_target_of_another_pipeline_is_refused(url: str) -> None:
    Target(address(url), "shop-a").prepare()
    Target(address(url), "shop-a").prepare()
    with pytest.raises(TargetUnfit, match="belongs to the pipeline 'shop-a', not to 'shop-b'"):
        Target(address(url), "shop-b").prepare()


def test_every_row_has_the_number_of_its_pass_and_every_part_goes_with_its_row() -> None:
    own = {name for name in METADATA.tables if not name.startswith("sync_")}
    parts = {name for name in own if METADATA.tables[name].foreign_keys}
    assert parts == {"order_lines", "user_spent"}
    assert all("sync_pass" in METADATA.tables[name].c for name in own - parts)
