"""What an error of a database means: it passes, it is about one row, or nothing can be written. Pure.

The invariant: a fault that may pass by itself never ends the role, and what the database refuses of one
row never holds up another row. Classified by what databases promise to keep stable: SQLSTATE (PostgreSQL,
appendix A) and SQLite's primary result codes; never by the text.
"""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)


class Fault(Enum):
    """What an error means for the synchronisation."""

    PASSES = auto()
    """Waited for, and tried again: the target is away, busy, full, or for reading only."""
    ROW = auto()
    """The row is left out; the others go on."""
    TARGET = auto()
    """Nothing can be written until a person has changed something."""


ERRORS: Final = (SQLAlchemyError, ArithmeticError, ValueError, TypeError, RecursionError)
"""What writing may raise. Drivers let through what Python raises for a value that they cannot encode."""

_PASSING_STATES: Final = (
    "08",  # connections; pgbouncer uses 08P01 for whatever it refuses or has given up
    "25006",  # for reading only: a standby, or a primary that was demoted
    "25P03",  # idle in a transaction for too long
    "25P04",  # a transaction for too long
    "26",  # a pooler gave the session to another server, which does not know the statement
    "40",  # serialisation, deadlock
    "42P05",  # as 26
    "53",  # disk full, out of memory, too many connections
    "55006",  # in use
    "55P03",  # locked
    "57",  # cancelled, shut down, starting, idle for too long
    "58",  # the system below it
    "72",  # a snapshot that is too old
    "XX000",  # internal, such as a catalogue that somebody changes at the moment
)
_ROW_STATES: Final = (
    "21",  # cardinality
    "22",  # data: out of range, not in the encoding
    "23",  # a constraint
    "27",  # a trigger
    "44",  # a view's check option
    "54",  # too large for an index
    "P0001",  # raised by a trigger
)

_PASSING_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_SCHEMA,
    }
)
_ROW_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)
_PRIMARY: Final = 0xFF


def fault_of(error: BaseException) -> Fault:
    """What an error of ``ERRORS`` means."""
    if not isinstance(error, DBAPIError):
        return Fault.ROW  # raised on this side, for a value that the driver cannot send
    if error.connection_invalidated:
        return Fault.PASSES
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return _of_state(state)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _of_code(code & _PRIMARY)
    # Without any code: no connection came about, or the driver itself refuses the value.
    return Fault.PASSES if isinstance(error, OperationalError) or _is_closed(error) else Fault.ROW


def _of_state(state: str) -> Fault:
    if state.startswith(_PASSING_STATES):
        return Fault.PASSES
    return Fault.ROW if state.startswith(_ROW_STATES) else Fault.TARGET


def _of_code(code: int) -> Fault:
    if code in _PASSING_CODES:
        return Fault.PASSES
    return Fault.ROW if code in _ROW_CODES else Fault.TARGET


def _is_closed(error: DBAPIError) -> bool:
    """True if psycopg says that its connection is gone; sqlite3 raises the same class for values."""
    return isinstance(error, InterfaceError) and not isinstance(error.orig, sqlite3.Error)


def said(error: BaseException) -> str:
    """Return what the database said, without the values of the row, which are people's data."""
    cause = error.orig if isinstance(error, StatementError) and error.orig else error
    state = getattr(cause, "sqlstate", None)
    text = str(getattr(getattr(cause, "diag", None), "message_primary", None) or cause)
    first = (text.splitlines() or [""])[0]
    return f"{state}: {first}" if state else f"{type(cause).__name__}: {first}"
