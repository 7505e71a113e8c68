"""Where output goes: answers on standard output, everything else on standard error.

With ``-o json`` standard output carries exactly one JSON document.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schemas.masking import masked, masked_bytes

WIDTH_OF_A_FILE: Final = 140
"""Where no terminal says how wide it is, ids shall not be cut off."""


class MaskingConsole(Console):
    """Prints no secret: text, tables and JSON pass through ``masked``."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as ``Console`` does, secrets masked."""
        super().print(*(_without_secrets(each) for each in objects), **options)

    def print_json(self, json: str | None = None, **options: Any) -> None:
        """Print as ``Console`` does, secrets masked."""
        super().print_json(None if json is None else masked(json), **options)


def _without_secrets(printed: Any) -> Any:
    """Mask what is text already; the cells of a table are masked when it is made."""
    if isinstance(printed, str):
        return masked(printed)
    return _masked_text(printed) if isinstance(printed, Text) else printed


def _masked_text(text: Text) -> Text:
    """Keep the style of what has no secret in it."""
    return text if masked(text.plain) == text.plain else Text(masked(text.plain), text.style)


errors = MaskingConsole(stderr=True)
"""Progress, logs and errors."""


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="A table for people, or one JSON document.")
]


def answers() -> MaskingConsole:
    """Standard output for people; made anew, because tests exchange the stream."""
    stream = sys.stdout
    return MaskingConsole(file=stream, width=None if stream.isatty() else WIDTH_OF_A_FILE)


def print_json(document: object, *, reveal: bool = False) -> None:
    """The one JSON document of a command. ``reveal``: it shows a secret that was made this moment."""
    text = msgspec.json.format(msgspec.json.encode(plain(document)), indent=2).decode()
    sys.stdout.write(text if reveal else masked(text))
    sys.stdout.write("\n")


def write_json(path: Path, document: object) -> None:
    """A report that is too long to be shown. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(plain(document)), indent=2)
    path.write_bytes(masked_bytes(text) + b"\n")


def plain(value: object) -> Any:
    """Anything that a command answers with, as JSON types."""
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return value


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table; numbers stand to the right."""
    made = Table(title=title, title_justify="left", header_style="bold")
    listed = [list(row) for row in rows]
    for number, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[number], int) for row in listed)
        made.add_column(column, justify="right" if numeric else "left")
    for row in listed:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: object) -> str | Text:
    if isinstance(value, Text):
        return _masked_text(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and not isinstance(value, Enum):
        return f"{value:,}"
    return escape(masked(str(value)))


def money(minor: int, currency: str) -> str:
    """An amount for people; currencies of this shop have a hundred minor units."""
    sign = "-" if minor < 0 else ""
    return f"{sign}{abs(minor) // 100:,}.{abs(minor) % 100:02d} {currency}"


def moment(epoch_ms: int) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sums(amounts: Mapping[str, int]) -> str:
    """Amounts by currency for people."""
    return ", ".join(money(amount, currency) for currency, amount in amounts.items()) or "-"
