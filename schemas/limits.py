"""How large a record may be that comes in, and that is written: every limit in bytes, in one table. Pure.

Size is key + value + headers, as the Kafka client counts it. The invariant: whatever comes in, each record
that is written about it fits ``MAX_RECORD_BYTES``, so no producer and no broker refuses it.
"""

from collections.abc import Iterable
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_RECORD_BYTES: Final = 8 * MIB
"""A record that the pipeline writes. Events carry state and data, so they may be larger than the command
behind them."""

MAX_INCOMING_BYTES: Final = 64 * MIB
"""A record on a commands topic, not compressed: the broker refuses a larger one."""

MAX_COMMAND_BYTES: Final = 512 * KIB
"""A command's value may have this size; an order of 1,000 lines has about 100 KB."""

MAX_HEADERS_BYTES: Final = 64 * KIB
"""All headers of a command, names and values."""

MAX_PASSED_ON_BYTES: Final = 2 * KIB
"""The headers that are passed on to all that follows: up to 2,000 records of one command have them."""

ROOM_BYTES: Final = 128 * KIB
"""What a record has beside its value: key, headers, and what the protocol adds."""

MAX_VALUE_BYTES: Final = MAX_RECORD_BYTES - ROOM_BYTES
"""The value of a record that the pipeline writes."""

MAX_ANSWER_BYTES: Final = MAX_COMMAND_BYTES // 2
"""Data of an answer to a saga, which is a command again."""

MAX_MESSAGE: Final = 1_000
"""Characters of a rejection's message: it may quote what came in."""

MAX_FIELD: Final = 256
"""Characters of the path to the field that is wrong."""

MAX_TYPE: Final = 128
"""Characters of a type that an outcome repeats."""

KEPT_KEY_BYTES: Final = KIB
KEPT_VALUE_BYTES: Final = 64 * KIB
KEPT_HEADERS_BYTES: Final = 64 * KIB
"""What is kept of a record that does not fit into its dead letter; see schemas/letters.py."""

HEADER_OVERHEAD: Final = 10
"""Bytes of a header beside its name and value, at most."""

RECORD_OVERHEAD: Final = 128
"""Bytes of a record in a batch of its own beside key, value and headers, at most."""


def headers_bytes(headers: Iterable[tuple[str, str | bytes | None]]) -> int:
    """Return the size of headers; a character of text counts as four bytes."""
    return sum(
        [
            HEADER_OVERHEAD
            + (len(name) if name.isascii() else 4 * len(name))
            + (0 if not value else len(value) if isinstance(value, bytes) else 4 * len(value))
            for name, value in headers
        ]
    )


def record_bytes(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, str | bytes | None]]
) -> int:
    """Return the size of a record, at most."""
    return RECORD_OVERHEAD + len(key or b"") + len(value or b"") + headers_bytes(headers)


def cut(text: str, most: int) -> str:
    """Return the text, or its beginning and dots if it has more than ``most`` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."
