"""Print answers on standard output and everything else on standard error: the only place that prints.

Invariant: stored text reaches a stream as the text it is, through `printable`; never as markup, emoji names
or escape sequences. Commands pass strings, numbers and `Styled`, and import neither `rich` nor `typer.echo`
(tests/unit/test_output.py). With ``-o json`` standard output carries exactly one JSON document.
"""

import codecs
import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
import typer
from rich import table as rich_table
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from runtime.printable import from_system, is_visible, printable
from schemas.masking import masked
from schemas.money import minor_digits

WIDTH_OF_A_FILE: Final = 10_000
"""Where no terminal has a width, a row stays one line: it can be copied, and searched for."""

WIDEST_COLUMN: Final = 160
"""An id has at most 128 characters, so none is folded in a file. Longer text is folded, never cut."""

DEEPER: Final = 20_000
"""Recursion limit while JSON is written: what was decoded may be about a thousand levels deep."""

Table: TypeAlias = rich_table.Table
"""What `table` makes."""

Picture: TypeAlias = Group
"""What `picture` makes: several things below each other."""

Cell: TypeAlias = object
"""A value in a table: text, a number, a truth value, None, `Styled`, or a tuple of lines."""


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="A table for people, or one JSON document.")
]


class Styled(NamedTuple):
    """Text in a colour, as `rich` names styles."""

    text: str
    style: str


class Printer:
    """Print lines and tables on one of the two streams."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, *parts: str | Styled) -> None:
        """Print one line, which no width breaks."""
        self.console.print(Text.assemble(*map(_text, parts)), soft_wrap=True)

    def block(self, text: str) -> None:
        """Print text that has lines of its own."""
        for line in text.split("\n"):
            self.say(line)

    def show(self, shown: Table) -> None:
        """Print what `table` has made."""
        self.console.print(shown)

    def heading(self, title: str) -> None:
        """Print a line that separates what follows."""
        self.say(Styled(f"── {title} ──", "bold"))

    def live(self, first: Picture) -> Live:
        """Return a picture that is exchanged in place; see `picture`."""
        return Live(first, console=self.console, auto_refresh=False)

    def json(self, document: object) -> None:
        """Print JSON among other lines."""
        for line in json_text(document, self.console.encoding).split("\n"):
            self.console.print(Text(line), soft_wrap=True)


def console(**options: Any) -> Console:
    """Return a console that reads nothing into a text."""
    return Console(markup=False, emoji=False, highlight=False, **options)


errors = Printer(console(stderr=True))
"""Progress, logs and errors."""


def answers() -> Printer:
    """Return standard output for people; made for each answer, because tests exchange the stream."""
    stream = sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_FILE
    return Printer(console(file=stream, width=width))


def print_json(document: object, *, reveal: bool = False) -> None:
    """Print the one JSON document of a command. ``reveal``: it shows a secret that was made this moment."""
    sys.stdout.write(json_text(document, sys.stdout.encoding, reveal=reveal) + "\n")


def reveal(name: str, secret: str) -> None:
    """Print a secret that was made this moment: the one line that is not masked."""
    sys.stdout.write(f"{name} {printable(secret)}\n")


def write_json(path: Path, document: object) -> None:
    """Write a report that is too long to be shown. Raises OSError."""
    path.write_text(json_text(document, "utf-8") + "\n", encoding="utf-8")


def json_text(document: object, encoding: str, *, reveal: bool = False) -> str:
    """Return JSON that the encoding can hold, in which every invisible character is an escape, and in which
    secrets are masked unless ``reveal``.
    """
    with _deeper():
        encoded = msgspec.json.encode(plain(document), enc_hook=str)
        text = msgspec.json.format(encoded, indent=2).decode()
    text = text if reveal else masked(text)
    whole = codecs.lookup(encoding).name == "utf-8"
    return re.sub(
        r"[^\n -~]", lambda hit: hit[0] if whole and is_visible(hit[0]) else _unicode(hit[0]), text
    )


def _unicode(char: str) -> str:
    r"""Return a character of a JSON string as ``\uXXXX``, beyond the first plane as two of them."""
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


@contextmanager
def _deeper() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPER))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def plain(value: object) -> Any:
    """Return anything that a command answers with as JSON types."""
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return from_system(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return value


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Return a table; numbers are aligned to the right."""
    made = Table(title=title and Text(printable(title)), title_justify="left", header_style="bold")
    listed = [list(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[number], int) for row in listed)
        made.add_column(
            Text(column),
            justify="right" if numeric else "left",
            overflow="fold",
            max_width=WIDEST_COLUMN,
        )
    for row in listed:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: Cell) -> Text:
    if isinstance(value, Styled):
        return _text(value)
    if isinstance(value, tuple):
        return Text("\n".join(_shown(str(line)) for line in value))
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int) and not isinstance(value, Enum):
        return Text(number(value))
    return Text(_shown(from_system(str(value))))


def _text(part: str | Styled) -> Text:
    if isinstance(part, str):
        return Text(_shown(from_system(part)))
    return Text(_shown(part.text), part.style)


def _shown(stored: str) -> str:
    """Return stored text as people see it: every character visible, no secret in it."""
    return printable(masked(stored))


def picture(facts: Iterable[tuple[str, Cell]], below: Table, note: str) -> Picture:
    """Return names with values, a table below them, and a note."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        grid.add_row(Text(name), _cell(value))
    return Group(grid, below, Text(note, "dim"))


def number(value: int) -> str:
    """Return a number for people; one of a thousand digits as what it is about."""
    return f"{value:,}" if abs(value) < 10**30 else f"{'-' if value < 0 else ''}over 10^30"


def money(minor: int, currency: str) -> str:
    """Return an amount for people, with as many decimals as the currency has (ISO 4217)."""
    digits = minor_digits(currency)
    if digits is None:
        return f"{number(minor)} minor units of {currency}"
    sign, whole = "-" if minor < 0 else "", abs(minor) // 10**digits
    decimals = f".{abs(minor) % 10**digits:0{digits}d}" if digits else ""
    return f"{sign}{number(whole)}{decimals} {currency}"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(epoch_ms: int) -> str:
    """Return a time for people, UTC; one that no calendar has as the milliseconds it is."""
    try:
        return (_EPOCH + timedelta(milliseconds=epoch_ms)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return f"{number(epoch_ms)} ms"


def sums(amounts: Mapping[str, int]) -> str:
    """Return amounts by currency for people."""
    return ", ".join(money(amount, currency) for currency, amount in amounts.items()) or "-"
