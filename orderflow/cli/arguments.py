"""Check what stands on a command line: ids, times, JSON, numbers. Each mistake is one sentence, exit code 2.

Limits are here because no number may be unbounded: a wait of 1e300 seconds is no time for any clock.
"""

import re
from datetime import UTC, datetime
from typing import Final

from orderflow.cli.exits import Refused
from schemas.decoding import DecodeError, decode_json
from schemas.ids import is_id
from schemas.records import encode

MAX_SECONDS: Final = 31_536_000
"""A year: the longest wait."""

MAX_COUNT: Final = 2**53 - 1
"""The largest number that every JSON reader and Redis keep exact."""


def checked_id(what: str, text: str) -> str:
    """Return an id. Raises Refused, which names ``what`` it was to be."""
    if is_id(text):
        return text
    raise Refused(
        f"{what} {shortened(text)} cannot be an id",
        "Use 1 to 128 letters, digits, blanks and ._:@+-, beginning with a letter or digit.",
    )


def checked_letter(text: str) -> str:
    """Return the id of a dead letter. Raises Refused for what is none."""
    if _is_letter(text):
        return text
    raise Refused(
        f"{shortened(text)} is no id of a dead letter", "`orderflow dead-letters list` has them."
    )


_is_letter: Final = re.compile(r"[0-9]{1,9}-[0-9]{1,18}").fullmatch


def shortened(text: str) -> str:
    """Return an argument in quotes; of a very long one the beginning."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}… ({len(text):,} characters)"


def json_data(text: str) -> bytes:
    """Return a command's data as JSON. Raises Refused with the place of the mistake."""
    try:
        return encode(decode_json(text))
    except (DecodeError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(
            f"--json is not JSON: {_with_column(problem, text)}",
            """Quote it for the shell, e.g. --json '{"name": "Ada"}'.""",
        ) from None


def _with_column(problem: str, text: str) -> str:
    """Return a decoder's message with the column of the character instead of the byte."""

    def column(found: re.Match[str]) -> str:
        before = text.encode()[: int(found[1])].decode(errors="ignore")
        return f"at column {len(before) + 1}"

    return re.sub(r"\(byte (\d+)\)", column, problem.removeprefix("JSON is malformed: "))


def epoch_ms(what: str, text: str) -> int:
    """Return an ISO 8601 time as epoch milliseconds. Raises Refused for anything else, and before 1970."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is not None:
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        found = round(aware.timestamp() * 1000)
        if found >= 0:
            return found
    raise Refused(
        f"{what} {shortened(text)} is no time from 1970 to 9999",
        f"For example {what} 2026-01-31T12:00:00Z.",
    )
