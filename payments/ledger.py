"""The simulated gateway's book: one row a key, in SQLite, on the disk before anything is answered.

The invariant: a key has at most one charge and at most one refund, and whatever was answered is still
here after a SIGKILL or a power cut. Calls block for as long as the disk takes; because they do and
there is one connection, nothing comes between looking a key up and writing it.
"""

import sqlite3
import uuid
from pathlib import Path
from typing import Final, Self

import msgspec

from payments.gateway import Charge, Charged, Declined, KeyReused, Refunded

BARRED: Final = "refunded before it was charged"

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, amount INTEGER, currency TEXT, token TEXT, reference TEXT, declined TEXT,
    refund TEXT);
CREATE TABLE IF NOT EXISTS charges (key TEXT NOT NULL, amount INTEGER NOT NULL, reference TEXT);
CREATE TABLE IF NOT EXISTS refunds (key TEXT NOT NULL, amount INTEGER NOT NULL, reference TEXT);
CREATE TABLE IF NOT EXISTS mended (at TEXT);
"""
# Movements of money have tables without a constraint: a charge that is made twice has to show.


class Entry(msgspec.Struct, frozen=True):
    """One movement of money."""

    key: str
    amount: int
    reference: str


class Book(msgspec.Struct, frozen=True):
    """All movements, for reconciliation."""

    charges: tuple[Entry, ...]
    refunds: tuple[Entry, ...]


class LedgerInUse(RuntimeError):
    """Another gateway has this ledger open: one gateway a home."""


class Ledger:
    """Use ``on_disk`` or ``in_memory``. Not thread-safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._db.executescript(_TABLES)

    @classmethod
    def on_disk(cls, path: Path) -> Self:
        """Opens or makes the file. Raises LedgerInUse."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=0)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "PRAGMA synchronous = FULL"
            )  # a commit is on the disk, not on its way
            return cls(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise LedgerInUse(f"{path}: {error}. {LedgerInUse.__doc__}") from error

    @classmethod
    def in_memory(cls) -> Self:
        """A book that goes with its process; threads may take turns with it."""
        return cls(sqlite3.connect(":memory:", check_same_thread=False))

    def close(self) -> None:
        """Everything is on the disk already."""
        self._db.close()

    def find(self, key: str) -> Charged | Declined | None:
        """The answer that was given under the key, if there is one."""
        row = self._db.execute(
            "SELECT amount, reference, declined FROM keys WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        amount, reference, declined = row
        return Declined(declined) if reference is None else Charged(amount, reference)

    def token_of(self, key: str) -> str | None:
        """The token that was charged or declined under the key."""
        row = self._db.execute("SELECT token FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def check(self, charge: Charge) -> None:
        """Raises KeyReused when the key stands for another charge; one that is barred has no terms."""
        row = self._db.execute(
            "SELECT amount, currency, token FROM keys WHERE key = ? AND token IS NOT NULL",
            (charge.key,),
        ).fetchone()
        if row not in (None, (charge.amount, charge.currency, charge.token)):
            raise KeyReused(f"key {charge.key} was used before for another charge")

    def charge(self, charge: Charge) -> Charged:
        """Takes the money; the key must be new."""
        reference = f"ch_{uuid.uuid4().hex}"
        self._enter(charge, reference, None)
        return Charged(charge.amount, reference)

    def decline(self, charge: Charge, reason: str) -> Declined:
        """Refuses for good; the key must be new."""
        self._enter(charge, None, reason)
        return Declined(reason)

    def refund(self, key: str) -> Refunded:
        """Gives back what was charged, once, or bars the key."""
        found = self.find(key)
        with self._db:
            if found is None:
                self._db.execute("INSERT INTO keys (key, declined) VALUES (?, ?)", (key, BARRED))
            if not isinstance(found, Charged):
                return Refunded(0)
            marked = self._db.execute(
                "UPDATE keys SET refund = ? WHERE key = ? AND refund IS NULL",
                (f"re_{uuid.uuid4().hex}", key),
            )
            if marked.rowcount:
                self._db.execute(
                    "INSERT INTO refunds SELECT key, amount, refund FROM keys WHERE key = ?", (key,)
                )
        return Refunded(found.amount, found.reference)

    def book(self) -> Book:
        """Every movement of money."""
        charges = self._db.execute("SELECT key, amount, reference FROM charges").fetchall()
        refunds = self._db.execute("SELECT key, amount, reference FROM refunds").fetchall()
        return Book(tuple(Entry(*row) for row in charges), tuple(Entry(*row) for row in refunds))

    def mend(self) -> None:
        """From now on every token works, also after a restart."""
        with self._db:
            self._db.execute("INSERT INTO mended VALUES (datetime())")

    @property
    def mended(self) -> bool:
        """Whether ``mend`` was called, ever."""
        return self._db.execute("SELECT 1 FROM mended").fetchone() is not None

    def _enter(self, charge: Charge, reference: str | None, declined: str | None) -> None:
        with self._db:
            self._db.execute(
                "INSERT INTO keys (key, amount, currency, token, reference, declined)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (charge.key, charge.amount, charge.currency, charge.token, reference, declined),
            )
            if reference is not None:
                self._db.execute(
                    "INSERT INTO charges VALUES (?, ?, ?)", (charge.key, charge.amount, reference)
                )
