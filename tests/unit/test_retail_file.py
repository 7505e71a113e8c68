"""A CSV file is read, or refused in one sentence that names the line: whatever was done to it on its way."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.shop.retail_file import (
    COLUMNS,
    LONGEST_LINE,
    NotOnlineRetail,
    Row,
    read_rows,
    time_of,
)

HEADER = ",".join(COLUMNS)
FIRST = "1,A,Teapot,1,2010-12-01T08:26:00,2.55,17850,UK"
SECOND = '2,B,"Café, ""blue"" ☕",2,2010-12-01T08:27:00,3.39,17850,UK'
GOOD = f"{HEADER}\n{FIRST}\n{SECOND}\n".encode()


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file.csv"
    path.write_bytes(data)
    return path


def read(tmp_path: Path, data: bytes) -> list[Row]:
    return list(read_rows(write(tmp_path, data)))


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        b"\xef\xbb\xbf" + GOOD,
        GOOD + b"\n",
        GOOD + b"\r\n\r\n",
        GOOD.rstrip(),
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        gzip.compress(GOOD),
        gzip.compress(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\r\n"),
    ],
)
def test_what_spreadsheets_and_systems_do_to_a_file_changes_nothing(
    tmp_path: Path, data: bytes
) -> None:
    rows = read(tmp_path, data)
    assert [row.number for row in rows] == [2, 3]
    assert rows[1].description == 'Café, "blue" ☕'


def test_a_line_is_counted_as_an_editor_does(tmp_path: Path) -> None:
    folded = '2,B,"two\nlines",2,2010-12-01T08:27:00,3.39,17850,UK'
    rows = read(tmp_path, f"{HEADER}\n{folded}\n\n{FIRST}\n".encode())
    assert [row.number for row in rows] == [2, 5]


REFUSED = {
    "empty": (b"", "line 1: the columns are ''"),
    "another header": (GOOD.replace(b"InvoiceNo", b"Invoice"), "line 1: the columns are"),
    "a duplicate header": (GOOD.replace(b"StockCode", b"InvoiceNo"), "line 1: the columns are"),
    "a missing column": (
        "\n".join(line.rpartition(",")[0] for line in (HEADER, FIRST)).encode(),
        "line 1: the columns are",
    ),
    "a short line": (GOOD + b"1,2,3\n", "line 4: 3 columns instead of 8"),
    "a long line": (GOOD + FIRST.encode() + b",x\n", "line 4: 9 columns instead of 8"),
    "a quote that is never closed": (
        GOOD.replace(b"Teapot", b'"Teapot'),
        "line 2: no CSV:",
    ),
    "a quote within a word": (GOOD.replace(b"Teapot", b'"Tea"pot'), "line 2: no CSV:"),
    "latin-1": (
        GOOD.decode().replace("☕", "").encode("latin-1"),
        r"line 3: no UTF-8 \(byte 0xe9\)",
    ),
    "utf-16": (GOOD.decode().encode("utf-16"), r"line 1: no UTF-8 \(byte 0xff\)"),
    "a NUL byte": (GOOD.replace(b"Teapot", b"Tea\0pot"), "line 2: a NUL byte"),
    "no line breaks": (b"x" * (LONGEST_LINE + 1), "line 1: longer than"),
    "a truncated gzip": (gzip.compress(GOOD * 50)[:-30], "the file is damaged"),
    "a wrong checksum": (gzip.compress(GOOD)[:-8] + bytes(8), "line 4: the file is damaged"),
    "a gzip that is none": (b"\x1f\x8bnone", "line 1: the file is damaged"),
    "gzip inside gzip": (gzip.compress(gzip.compress(GOOD)), "line 1: no UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    with pytest.raises(NotOnlineRetail, match=message):
        read(tmp_path, data)


@pytest.mark.parametrize("command", ["online-retail", "place-online-retail"])
@pytest.mark.parametrize("name", REFUSED)
def test_the_command_says_it_in_one_sentence(command: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, REFUSED[name][0])
    env = {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": "", "ORDERFLOW_HOME": str(tmp_path)}
    result = CliRunner().invoke(app, ["import", command, str(path)], env=env)
    assert result.exit_code == Exit.USAGE, result.output
    sentences = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1
    assert "line " in sentences[0]


@pytest.mark.parametrize(
    "date", ["", "yesterday", "0001-01-01", "1969-12-31", "99999-01-01", "9" * 1_000, "\x1b[2J"]
)
def test_a_date_that_no_order_can_have_is_refused_with_its_line(date: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace(b"2010-12-01T08:27:00", date.encode()))
    with pytest.raises(NotOnlineRetail, match=r"line 3: '.{0,210}' is no ISO 8601 time"):
        [time_of(row) for row in read_rows(path)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.builds(
        lambda at, piece, packed: (
            (gzip.compress(GOOD, mtime=0) if packed else GOOD)[:at]
            + piece
            + (gzip.compress(GOOD, mtime=0) if packed else GOOD)[at + len(piece) :]
        ),
        st.integers(0, len(GOOD)),
        st.binary(max_size=8),
        st.booleans(),
    )
)
def test_any_bytes_are_read_or_refused_with_a_line(data: bytes, tmp_path: Path) -> None:
    rows, refusal = [], None
    try:
        rows = read(tmp_path, data)
    except NotOnlineRetail as error:
        refusal = str(error)
    if refusal is not None:
        assert "line " in refusal
    else:
        expected = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        text = expected.decode("utf-8-sig")
        records = [r for r in csv.reader(io.StringIO(text, newline=""), strict=True) if r]
        assert [list(row[1:]) for row in rows] == [record[:7] for record in records[1:]]
