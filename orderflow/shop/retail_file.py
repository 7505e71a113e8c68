"""Reads the Online Retail file (UCI, Daqing Chen 2015): one row an order line, as CSV, gzipped or
not.

Knows the columns and nothing of orders. Texts stay as they stand in the file: whether ``-6`` is a
good quantity is for the pipeline to say.
"""

import csv
import gzip
import io
import re
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
    """All rows, one at a time. ``on_bytes`` hears how many bytes of the file are read, for
    progress.

    Raises NotOnlineRetail, and OSError when the file cannot be read.
    """
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        packed = raw.peek(2)[:2] == GZIP_MAGIC
        data = stack.enter_context(gzip.open(raw)) if packed else raw
        text = stack.enter_context(io.TextIOWrapper(data, encoding="utf-8", newline=""))
        try:
            for row in _rows(csv.reader(text), path):
                yield row
                if on_bytes is not None and row.number % 500 == 0:
                    on_bytes(raw.tell())
        except UnicodeDecodeError as error:
            raise NotOnlineRetail(f"{path} is not UTF-8: {error.reason}") from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise NotOnlineRetail(f"{path} is damaged: {error}. Fetch it again.") from None


def _rows(reader: Iterator[list[str]], path: Path) -> Iterator[Row]:
    header = next(reader, [])
    if tuple(header) != COLUMNS:
        raise NotOnlineRetail(
            f"{path} begins with the columns {','.join(header)!r}, not {','.join(COLUMNS)!r}"
        )
    for number, fields in enumerate(reader, start=2):
        if len(fields) != len(COLUMNS):
            raise NotOnlineRetail(
                f"{path}, record {number}: {len(fields)} columns instead of {len(COLUMNS)}"
            )
        invoice, code, description, quantity, date, price, customer, _country = fields
        yield Row(number, invoice, code, description, quantity, date, price, customer)


def quantity_of(text: str) -> int | str:
    """The number of pieces; what is no whole number comes back as the text it is, to be refused."""
    return int(text) if _whole(text) else text


def pence_of(text: str) -> int | str:
    """Pounds as pence, half a penny to the even one; what is no amount comes back as it is."""
    if not _decimal(text):
        return text
    return int((Decimal(text) * 100).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def time_of(row: Row) -> int:
    """The row's local time in London as epoch milliseconds UTC. Raises NotOnlineRetail."""
    try:
        moment = datetime.fromisoformat(row.date)
    except ValueError:
        raise NotOnlineRetail(f"record {row.number}: {row.date!r} is no ISO 8601 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=SHOP_TIME)
    return int(moment.timestamp() * 1000)
