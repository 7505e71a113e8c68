"""A SQL database as a target: its schema, what it has of each view, and one transaction a batch.

Rows, cursors and positions commit together. The first statement of each transaction moves the view's
revision on from the one that was read before the rows were: whoever comes second changes nothing
(`Overtaken`). So every row that is written was read after the last commit, and an older one never
takes the place of a newer one, without comparing versions, which a deletion may start anew at 1.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from runtime.printable import printable
from sync import faults
from sync.cursor import Identity, Stand
from sync.faults import Fault, fault_of
from sync.rows import ROW_TYPES, RowType, Values
from sync.tables import METADATA, PASS, SCHEMA_VERSION, SYNC_CURSORS, SYNC_TARGET, SYNC_VIEWS

logger = logging.getLogger(__name__)

DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
CONNECT_TIMEOUT_S: Final = 10
LOCK_TIMEOUT_S: Final = 5
"""How long a transaction waits for somebody's lock, before it is tried again from the beginning."""

_SCHEMA_LOCK: Final = 7_046_029_254_386_353_131  # any number that is nobody else's


class TargetUnfit(RuntimeError):
    """The target cannot take these views, and no retry changes that; the message says what would."""


class Overtaken(RuntimeError):
    """Another process has written to this view since it was read; nothing of this one is in."""


class TargetAway(RuntimeError):
    """The target is gone, busy, full or for reading only: that may pass by itself. Its cause says which."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a transaction brings: rows with their parts, and the keys of rows that are gone."""

    upserts: Sequence[tuple[RowType, Values, Sequence[Values]]] = ()
    deletes: Sequence[tuple[RowType, Values]] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """What the target has after a transaction; rows that were deleted, and that it refuses."""

    stand: Stand
    deleted: int
    left_out: int


NO_URL: Final = (
    "that is no database URL: sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / "
    "and the like in the user and the password escaped as %40 %3A %2F"
)


def address(text: str) -> URL:
    """The URL of a target, with the driver that is used. Raises TargetUnfit; never shows the text."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # of a port that is no number
        raise TargetUnfit(NO_URL) from None
    # Which of two ends the password is not known: a part of it would be taken for a host, and shown.
    if url.host and text.partition("?")[0].count("@") > 1:
        raise TargetUnfit(NO_URL)
    dialect = url.drivername.partition("+")[0]
    if dialect not in DRIVERS:
        raise TargetUnfit(f"{dialect} is no target: sqlite:///FILE or postgresql://… is")
    return url.set(drivername=DRIVERS[dialect])


def shown(url: URL) -> str:
    """The URL as it may be logged: no password, and no query, which may have one."""
    plain = url.set(drivername=url.get_backend_name(), query={})
    return plain.render_as_string(hide_password=True)


class Target:
    """Connects at the first call. Every method may raise TargetAway; TargetUnfit for what stays."""

    def __init__(self, url: URL, prefix: str) -> None:
        self._prefix = prefix
        self._engine = _engine(url)

    def close(self) -> None:
        """Drop the connections; the next call makes new ones, which may lead to another server."""
        self._engine.dispose()

    def prepare(self) -> None:
        """Make the tables, or see that they are ours. Raises TargetUnfit."""
        with self._transaction("the tables") as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            there = set(inspect(connection).get_table_names())
            if SYNC_TARGET.name not in there:
                _refuse_strangers(there)
                METADATA.create_all(connection)
                row = {"schema_version": SCHEMA_VERSION, "prefix": self._prefix}
                connection.execute(insert(SYNC_TARGET), row)
                connection.execute(insert(SYNC_VIEWS), [_empty(view) for view in ROW_TYPES])
            else:
                self._check(connection)

    def stand(self, view: str) -> Stand:
        """What the target has of a view."""
        with self._transaction(view) as connection:
            row = connection.execute(select(SYNC_VIEWS).where(SYNC_VIEWS.c.view == view)).one()
            wanted = select(SYNC_CURSORS).where(SYNC_CURSORS.c.view == view)
            cursors = {one.bucket: one.stamp for one in connection.execute(wanted)}
        identity = None if row.identity is None else Identity(**row.identity)
        return Stand(
            row.revision, row.pass_number, row.filling, identity, row.covered, row.topics, cursors
        )

    def commit(
        self, view: str, before: Stand, after: Stand, rows: Rows, *, sweep: bool = False
    ) -> Committed:
        """All in one transaction; ``sweep`` deletes what the pass did not meet. A row that the target
        refuses is left out and named in the log. Raises Overtaken.
        """
        now = replace(after, revision=before.revision + 1)
        try:
            with self._engine.begin() as connection:
                _take_turn(connection, view, before.revision, now)
                deleted = _write(connection, now.number, rows)
                if sweep:
                    deleted += _sweep(connection, view, now.number)
                _write_cursors(connection, view, before, now)
            return Committed(now, deleted, 0)
        except faults.ERRORS as error:
            if fault_of(error) is not Fault.ROW:
                raise _raised(error, view) from error
        return self._commit_singly(view, before, now, rows, sweep=sweep)

    def _commit_singly(
        self, view: str, before: Stand, now: Stand, rows: Rows, *, sweep: bool
    ) -> Committed:
        """As ``commit``, with each row in a savepoint of its own."""
        with self._transaction(view) as connection:
            _take_turn(connection, view, before.revision, now)
            singly = _Singly(connection)
            for one in rows.deletes:
                singly.run(_name(*one), partial(_write, connection, 0, Rows((), [one])))
            for row in rows.upserts:
                singly.run(_name(*row[:2]), partial(_write, connection, now.number, Rows([row])))
            if sweep:
                for row_type, key in list(_unmet(connection, view, now.number)):
                    singly.run(
                        _name(row_type, key), partial(_delete, connection, row_type.table, [key])
                    )
            _write_cursors(connection, view, before, now)
        return Committed(now, singly.deleted, len(singly.left_out))

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Connection]:
        """Raises TargetAway and TargetUnfit."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _raised(error, what) from error

    def _check(self, connection: Connection) -> None:
        found = connection.execute(select(SYNC_TARGET)).one()
        if found.schema_version != SCHEMA_VERSION:
            newer = found.schema_version > SCHEMA_VERSION
            raise TargetUnfit(
                f"the target has the tables of version {found.schema_version}, this orderflow writes"
                f" version {SCHEMA_VERSION}: "
                + ("update it" if newer else "give it an empty database, which fills by itself")
            )
        if found.prefix != self._prefix:
            raise TargetUnfit(
                f"the target belongs to the pipeline {found.prefix!r}, not to {self._prefix!r}: give each"
                " one a database of its own"
            )


class _Singly:
    """Runs what is written of one row at a time; what is refused of one leaves no trace but a line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.deleted = 0
        self.left_out: set[str] = set()

    def run(self, name: str, write: Callable[[], int]) -> None:
        """Raises what is not about this row."""
        try:
            with self._connection.begin_nested():
                self.deleted += write()
        except faults.ERRORS as error:
            if fault_of(error) is not Fault.ROW:
                raise
            self.left_out.add(name)
            said = printable(faults.said(error))
            logger.error("left out: %s: the target refuses it: %s", printable(name), said)


def _name(row_type: RowType, values: Values) -> str:
    primary = row_type.table.primary_key.columns[0].name
    return f"{row_type.table.name} {values[primary]}"


def _raised(error: BaseException, what: str) -> Exception:
    """What is raised for an error of the database."""
    if fault_of(error) is Fault.PASSES:
        return TargetAway(faults.said(error))
    return TargetUnfit(f"the target refuses {what}: {faults.said(error)}")


def _engine(url: URL) -> Engine:
    """One connection, checked before each use. Parameters, which are people's data, are in no message."""
    here = url.get_backend_name() == "sqlite"
    network = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,  # a peer that vanished without a word is noticed in a minute
        "keepalives_interval": 10,
        "keepalives_count": 3,
        # A pooler may give each transaction to another server, which does not know what was prepared.
        "prepare_threshold": None,
    }
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"timeout": LOCK_TIMEOUT_S} if here else network | dict(url.query),
    )
    # Of a connection that broke in the middle of a statement it logs tracebacks, as it drops it; that the
    # target is away is told once, by who waits for it.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    event.listen(engine, "begin", _begin_sqlite if here else _begin_postgresql)
    if here:
        event.listen(engine, "connect", _connect_sqlite)
    return engine


def _connect_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "PRAGMA secure_delete = ON"
    )  # a row that is deleted leaves no name in the file
    (cleaned,) = connection.execute("PRAGMA user_version").fetchone()
    if not cleaned:  # pages that an older release has freed
        connection.execute("VACUUM")
        connection.execute("PRAGMA user_version = 1")


def _begin_sqlite(connection: Connection) -> None:
    """For writing at once: a transaction that reads first may find the file changed when it writes."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")


def _refuse_strangers(there: set[str]) -> None:
    taken = sorted(there & set(METADATA.tables))
    if taken:
        raise TargetUnfit(
            f"the target has tables of these names that orderflow did not make: {', '.join(taken)}. Give"
            " it a database of its own, or a schema: postgresql://…?options=-csearch_path%3DNAME"
        )


def _empty(view: str) -> Values:
    return {"view": view, **_columns(Stand())}


def _columns(stand: Stand) -> Values:
    return {
        "revision": stand.revision,
        "pass_number": stand.number,
        "filling": stand.filling,
        "identity": None if stand.identity is None else asdict(stand.identity),
        "covered": dict(stand.covered),
        "topics": dict(stand.topics),
        "written_at_ms": time.time_ns() // 1_000_000,
    }


def _take_turn(connection: Connection, view: str, revision: int, now: Stand) -> None:
    mine = (SYNC_VIEWS.c.view == view) & (SYNC_VIEWS.c.revision == revision)
    if not _count(connection.execute(update(SYNC_VIEWS).where(mine).values(_columns(now)))):
        raise Overtaken(Overtaken.__doc__)


def _write(connection: Connection, number: int, rows: Rows) -> int:
    deleted = 0
    for row_type, keys in _by_type(rows.deletes).items():
        deleted += _delete(connection, row_type.table, keys)
    for row_type, found in _by_type(
        (t, (values, parts)) for t, values, parts in rows.upserts
    ).items():
        values = [{**row, PASS: number} for row, _ in found]
        connection.execute(_upsert(row_type.table, connection.dialect.name), values)
        if row_type.parts is not None:
            primary = row_type.table.primary_key.columns[0].name
            table = row_type.parts.table
            _delete(connection, table, [{primary: row[primary]} for row in values])
            parts = [part for _, of_row in found for part in of_row]
            if parts:
                connection.execute(insert(table), parts)
    return deleted


def _by_type(items: Iterable[tuple[RowType, Any]]) -> Mapping[RowType, list[Any]]:
    found: dict[RowType, list[Any]] = {}
    for row_type, item in items:
        found.setdefault(row_type, []).append(item)
    return found


def _delete(connection: Connection, table: Table, keys: Sequence[Values]) -> int:
    """Parts of a row go with it, by their foreign key."""
    if not keys:
        return 0
    named = [{f"key_{name}": value for name, value in key.items()} for key in keys]
    statement = delete(table)
    for name in keys[0]:
        statement = statement.where(table.c[name] == bindparam(f"key_{name}"))
    return _count(connection.execute(statement, named))


@lru_cache
def _upsert(table: Table, dialect: str) -> Any:
    statement = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)
    changed = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key}
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_=changed
    )


def _sweep(connection: Connection, view: str, number: int) -> int:
    return sum(
        _count(connection.execute(delete(t.table).where(t.table.c[PASS] < number)))
        for t in ROW_TYPES[view]
    )


def _unmet(connection: Connection, view: str, number: int) -> Iterator[tuple[RowType, Values]]:
    """The rows that the pass did not meet."""
    for row_type in ROW_TYPES[view]:
        primary = row_type.table.primary_key.columns[0]
        wanted = select(primary).where(row_type.table.c[PASS] < number)
        for key in connection.execute(wanted).scalars().all():
            yield row_type, {primary.name: key}


def _write_cursors(connection: Connection, view: str, before: Stand, now: Stand) -> None:
    cursors = {b: at for b, at in now.cursors.items() if before.cursors.get(b) != at}
    if cursors:
        rows = [{"view": view, "bucket": b, "stamp": at} for b, at in cursors.items()]
        connection.execute(_upsert(SYNC_CURSORS, connection.dialect.name), rows)


def _count(result: CursorResult[Any]) -> int:
    return max(0, result.rowcount)
