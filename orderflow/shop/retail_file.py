"""Reads the Online Retail file (UCI, Daqing Chen 2015): one row an order line, as CSV, gzipped or
not.

Knows the columns and nothing of orders. Texts stay as they stand in the file: whether ``-6`` is a
good quantity is for the pipeline to say.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
SHOP_TIME: Final = ZoneInfo("Europe/London")
GZIP_MAGIC: Final = b"\x1f\x8b"
LONGEST_LINE: Final = 100_000
"""Characters. A file without line breaks must not fill the memory."""

LONGEST_QUOTED: Final = 200
"""Characters of the file in an error message."""

_break: Final = re.compile(rb"\r\n|\r|\n")
_whole = re.compile(r"-?[0-9]{1,18}").fullmatch
_decimal = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?").fullmatch


class NotOnlineRetail(ValueError):
    """The file is not what the import reads; the message names the line and what was expected."""


class Row(NamedTuple):
    """One line of the file as text; ``number`` is the line's, counted from 1 with the header."""

    number: int
    invoice: str
    stock_code: str
    description: str
    quantity: str
    date: str
    unit_price: str
    customer: str


def read_rows(path: Path, on_bytes: Callable[[int], None] | None = None) -> Iterator[Row]:
    """Yield all rows, one at a time. ``on_bytes`` hears how many bytes of the file are read, for
    progress.

    Raises NotOnlineRetail, which names the line, and OSError when the file cannot be read.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        packed = raw.peek(2)[:2] == GZIP_MAGIC
        data = stack.enter_context(gzip.open(raw)) if packed else raw
        text = stack.enter_context(io.TextIOWrapper(data, encoding="utf-8-sig", newline=""))
        lines = _Lines(text, path)
        for row in _rows(csv.reader(lines, strict=True), lines):
            yield row
            if on_bytes is not None and row.number % 500 == 0:
                on_bytes(raw.tell())


class _Lines:
    """The lines of the file. ``number``: of the last one that was read, counted from 1."""

    def __init__(self, text: io.TextIOWrapper, path: Path) -> None:
        self._text = text
        self._path = path
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(LONGEST_LINE + 1)
        except UnicodeDecodeError as error:
            # What was decoded before is read already, so the failed piece begins in the next line.
            self.number += len(_break.findall(error.object[: error.start]))
            byte = error.object[error.start]
            raise self.wrong(f"no UTF-8 (byte 0x{byte:02x})", self.number + 1) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.wrong(
                f"the file is damaged: {error}. Fetch it again", self.number + 1
            ) from None
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST_LINE:
            raise self.wrong(f"longer than {LONGEST_LINE:,} characters")
        if "\0" in line:
            raise self.wrong("a NUL byte")
        return line

    def wrong(self, problem: str, at: int | None = None) -> NotOnlineRetail:
        """Return what is to be raised: something is wrong in the last line, or in another one."""
        return NotOnlineRetail(f"{self._path}, line {at or self.number}: {problem}")


def _rows(reader: Iterator[list[str]], lines: _Lines) -> Iterator[Row]:
    records = _records(reader, lines)
    _, header = next(records, (1, []))
    if tuple(header) != COLUMNS:
        found = ",".join(header)[:LONGEST_QUOTED]
        raise lines.wrong(f"the columns are {found!r}, not {','.join(COLUMNS)!r}", at=1)
    for number, fields in records:
        if len(fields) != len(COLUMNS):
            raise lines.wrong(f"{len(fields)} columns instead of {len(COLUMNS)}", at=number)
        invoice, code, description, quantity, date, price, customer, _country = fields
        yield Row(number, invoice, code, description, quantity, date, price, customer)


def _records(reader: Iterator[list[str]], lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the number of its first line, without those that are empty."""
    while True:
        number = lines.number + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise lines.wrong(f"no CSV: {error}", at=number) from None
        if fields is None:
            return
        if fields:
            yield number, fields


def quantity_of(text: str) -> int | str:
    """The number of pieces; what is no whole number comes back as the text it is, to be refused."""
    return int(text) if _whole(text) else text


def pence_of(text: str) -> int | str:
    """Pounds as pence, half a penny to the even one; what is no amount comes back as it is."""
    if not _decimal(text):
        return text
    return int((Decimal(text) * 100).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def time_of(row: Row) -> int:
    """Return the row's local time in London as epoch milliseconds UTC. Raises NotOnlineRetail."""
    try:
        moment = datetime.fromisoformat(row.date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=SHOP_TIME)
        at_ms = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        at_ms = -1
    if at_ms < 0:
        date = row.date[:LONGEST_QUOTED]
        raise NotOnlineRetail(f"line {row.number}: {date!r} is no ISO 8601 time from 1970 to 9999")
    return at_ms
