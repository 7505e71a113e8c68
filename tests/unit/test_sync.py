"""Synchronisation by polling, its pure parts: what to do next, where a page ends, what a row becomes."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, exc, text

from sync.cursor import Follow, Identity, OtherTopics, Pass, Seen, Stand, Wait, plan, whole_stamps
from sync.faults import Fault, fault_of
from sync.polling import rows_to_write
from sync.rows import ORDER, ROW_TYPES, SAGA, SKU, SUMS, USER, NoRow, rows_of
from sync.tables import METADATA, SYNC_TARGET
from sync.target import Overtaken, Rows, Target, TargetAway, TargetUnfit, address, shown

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


@pytest.mark.parametrize("between", [*"@:/?#%[] ;,&=+\\", "@:", "/@", "@@", ":1/", "%zz", "\n"])
@pytest.mark.parametrize(
    "at", ["ada:{}@db.example:5432/views", "ada@db.example:{}/views", "ada:{}@/views"]
)
def test_no_part_of_a_password_is_shown_however_it_is_written(between: str, at: str) -> None:
    text = f"postgresql://{at.format(f'hidden1{between}hidden2')}"
    try:
        told = shown(address(text))
    except TargetUnfit as refusal:
        told = str(refusal)
    assert "hidden" not in told


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
    first = target.commit("stock", read, replace(read, cursors={3: 7}), Rows([row])).stand
    assert target.stand("stock") == first
    with pytest.raises(Overtaken):
        target.commit("stock", read, read, Rows(deletes=[(SKU, {"sku": "1"})]))
    assert target.stand("stock") == first
    assert target.commit("stock", first, first, Rows(deletes=[(SKU, {"sku": "1"})])).deleted == 1
    target.close()


def order_fields(status: str, skus: list[str]) -> dict[str, str]:
    lines = [{"sku": sku, "quantity": 1, "unit_price": 2} for sku in skus]
    numbers = ("version", "total", "spent", "created_at_ms", "updated_at_ms")
    fields = dict.fromkeys(numbers, "1") | {"status": status, "currency": "EUR", "user_id": "?"}
    return fields | {"lines": json.dumps(lines)}


found_orders = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from(["o-1", "o-2"]),
        st.none() | st.tuples(st.sampled_from(["created", "shipped"]), st.lists(st.just("TEAPOT"))),
    ),
    max_size=8,
)


@given(found_orders)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
def test_an_order_that_is_read_more_than_once_is_written_once_as_it_was_read_last(
    tmp_path: Path, found: list[tuple[str, str, Any]]
) -> None:
    path = tmp_path / f"{time.time_ns()}.db"
    target = Target(address(f"sqlite:///{path}"), "p")
    target.prepare()
    read = target.stand("orders")
    rows, left_out = rows_to_write(
        ((ORDER, f"{user}/{order}"), {} if is_ is None else order_fields(*is_))
        for user, order, is_ in found
    )
    assert target.commit("orders", read, read, rows).left_out == left_out == 0
    target.close()
    wanted = {order: (user, is_[0], len(is_[1])) for user, order, is_ in found if is_ is not None}
    with closing(sqlite3.connect(path)) as connection:
        got = connection.execute(
            "SELECT order_id, user_id, status,"
            " (SELECT count(*) FROM order_lines l WHERE l.order_id = o.order_id) FROM orders o"
        ).fetchall()
    assert {order: (user, status, lines) for order, user, status, lines in got} == wanted


@given(refused=st.sets(st.integers(0, 9)), deleted=st.sets(st.integers(0, 9)), swept=st.booleans())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
def test_a_row_that_the_database_refuses_is_left_out_alone(
    tmp_path: Path, refused: set[int], deleted: set[int], swept: bool
) -> None:
    path = tmp_path / f"{time.time_ns()}.db"
    target = Target(address(f"sqlite:///{path}"), "p")
    target.prepare()
    names = [name for name in SKU.table.columns.keys() if name != "sync_pass"]  # noqa: SIM118
    rows: list[Any] = [(SKU, dict.fromkeys(names, n), []) for n in range(10)]
    before = target.stand("stock")
    stand = target.commit("stock", before, replace(before, number=1), Rows(rows)).stand
    with closing(sqlite3.connect(path)) as connection, connection:
        some = ",".join(f"'{n}'" for n in refused) or "NULL"
        for what, row in (("UPDATE", "NEW"), ("DELETE", "OLD")):
            connection.execute(
                f"CREATE TRIGGER no_{what} BEFORE {what} ON stock WHEN {row}.sku IN ({some})"
                " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
    after = replace(stand, number=2 if swept else 1, cursors={1: 5})
    changed: list[Any] = [
        (SKU, {name: 77 if name == "on_hand" else n for name in names}, [])
        for n in range(10)
        if n not in deleted
    ]
    gone: list[Any] = [] if swept else [(SKU, {"sku": str(n)}) for n in deleted]
    done = target.commit("stock", stand, after, Rows(changed, gone), sweep=swept)
    assert done.left_out == len(refused)
    assert done.deleted == len(deleted - refused)
    assert target.stand("stock").cursors == {1: 5}
    target.close()
    with closing(sqlite3.connect(path)) as connection:
        got = dict(connection.execute("SELECT CAST(sku AS INTEGER), on_hand FROM stock"))
    assert got == {
        n: n if n in refused else 77 for n in range(10) if n not in deleted or n in refused
    }


def driver_error(kind: type[Exception], **codes: Any) -> Exception:
    """As SQLAlchemy raises what a driver raised."""
    orig = kind("x")
    for name, code in codes.items():
        setattr(orig, name, code)
    wrapper = {
        "IntegrityError": exc.IntegrityError,
        "DataError": exc.DataError,
        "InternalError": exc.InternalError,
        "ProgrammingError": exc.ProgrammingError,
        "InterfaceError": exc.InterfaceError,
    }.get(kind.__name__, exc.OperationalError)
    return wrapper("SELECT 1", {}, orig)


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        *(
            (state, Fault.PASSES)
            for state in ("08000", "08006", "08P01", "25006", "25P03", "25P04")
        ),
        *(
            (state, Fault.PASSES)
            for state in ("26000", "40001", "40P01", "42P05", "53100", "53300")
        ),
        *(
            (state, Fault.PASSES)
            for state in ("55006", "55P03", "57014", "57P01", "57P02", "57P03")
        ),
        *((state, Fault.PASSES) for state in ("57P05", "58030", "72000", "XX000")),
        *((state, Fault.ROW) for state in ("21000", "22001", "22003", "22021", "22P02", "22P05")),
        *((state, Fault.ROW) for state in ("23502", "23503", "23505", "23514", "44000", "54000")),
        *((state, Fault.ROW) for state in ("54001", "P0001")),
        *(
            (state, Fault.TARGET)
            for state in ("3D000", "42501", "42P01", "42703", "XX001", "0A000")
        ),
    ],
)
def test_what_postgresql_says_passes_or_is_about_a_row_or_about_the_target(
    state: str, fault: Fault
) -> None:
    """By its state alone, whatever class the driver gives it."""
    for kind in (psycopg.OperationalError, psycopg.InternalError, psycopg.ProgrammingError):
        raised = type(kind.__name__, (kind,), {"sqlstate": state})
        assert fault_of(driver_error(raised)) is fault


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        *((code, Fault.PASSES) for code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT)),
        *((code, Fault.PASSES) for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC)),
        *((code, Fault.PASSES) for code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)),
        *((code, Fault.ROW) for code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_TOOBIG)),
        *((code, Fault.TARGET) for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)),
        (sqlite3.SQLITE_ERROR, Fault.TARGET),
    ],
)
def test_what_sqlite_says_passes_or_is_about_a_row_or_about_the_target(
    code: int, fault: Fault
) -> None:
    assert fault_of(driver_error(sqlite3.OperationalError, sqlite_errorcode=code)) is fault


def test_what_has_no_code_passes_if_there_was_no_connection() -> None:
    assert fault_of(driver_error(psycopg.OperationalError)) is Fault.PASSES
    assert fault_of(driver_error(psycopg.InterfaceError)) is Fault.PASSES
    assert fault_of(driver_error(psycopg.DataError)) is Fault.ROW
    assert fault_of(driver_error(sqlite3.InterfaceError)) is Fault.ROW
    assert fault_of(OverflowError()) is Fault.ROW


def test_a_file_that_is_no_database_is_refused_and_a_full_one_waited_for(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TargetUnfit, match="not a database"):
        Target(address(f"sqlite:///{tmp_path}/no.db"), "p").prepare()
    with pytest.raises(TargetAway, match="unable to open"):
        Target(address(f"sqlite:///{tmp_path}/missing/x.db"), "p").prepare()


hostile_text = (
    st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["\0", "9" * 30, "9" * 5_000, str(2**63), "-1", "NaN", "1e999", "[]", "{}"])
    | st.sampled_from(['[{"sku": "\\ud800", "quantity": 1e999, "unit_price": 1}]', "[" * 5_000])
    | st.sampled_from(['["\\u0000", {"\\udfff": 1e300}]', "[" * 900 + "]" * 900, "[[1], 2, null]"])
)


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
def test_whatever_stands_in_a_view_is_a_row_that_sqlite_takes_or_none(
    url: str, data: st.DataObject
) -> None:
    target = Target(address(url), "p")
    target.prepare()
    for view, row_types in ROW_TYPES.items():
        for row_type in row_types:
            names = [column.name for column in row_type.table.columns] + ["lines", "spent:EUR"]
            fields = {name: data.draw(hostile_text | st.just("1"), label=name) for name in names}
            rows, _ = rows_to_write([((row_type, f"u/{data.draw(hostile_text)}"), fields)])
            stand = target.stand(view)
            assert target.commit(view, stand, stand, rows).left_out == 0
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
