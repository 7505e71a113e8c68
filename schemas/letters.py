"""What a dead letter says of its failure: the headers that are added to those of the record.

Pure. Whoever could not handle a record uses it: processors, projectors, the payments' outbox. The names
are schemas/headers.py's; the record's own headers, key and value stay as they came.
"""

import traceback
from typing import Final

import msgspec

from schemas import headers

MESSAGE_LIMIT: Final = 1_000
STACKTRACE_LIMIT: Final = 8_000
"""Bytes. A traceback's last lines say most, so it is cut at its beginning."""

_CUT: Final = b"..."


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a record could not be handled. ``stage``: who could not. ``attempt``: how often it was tried, from
    1. ``holds_key``: what comes after it under its key waits for it.
    """

    code: str
    message: str
    stage: str
    cause: BaseException | None = None
    attempt: int = 1
    holds_key: bool = False


def letter_marks(
    came: headers.Marks, failure: Failure, place: tuple[str, int, int], at_ms: int
) -> list[tuple[str, bytes]]:
    """Headers of the dead letter of a record that came with these headers. ``place``: topic, partition and
    offset of the record; ``at_ms``: its time, epoch milliseconds UTC.
    """
    topic, partition, offset = place
    said: dict[str, str] = {
        headers.ERROR_CODE: failure.code,
        headers.ERROR_MESSAGE: failure.message,
        headers.ERROR_STAGE: failure.stage,
        headers.ERROR_TOPIC: topic,
        headers.ERROR_PARTITION: str(partition),
        headers.ERROR_OFFSET: str(offset),
        headers.ERROR_TIMESTAMP: str(at_ms),
        headers.ERROR_ATTEMPT: str(failure.attempt),
    }
    if failure.holds_key:
        said[headers.ERROR_HOLDS_KEY] = "true"
    marks: list[tuple[str, bytes]] = [*came]  # type: ignore[list-item]  # they came from the broker
    marks += ((name, _head(text, MESSAGE_LIMIT)) for name, text in said.items())
    if failure.cause is not None:
        kind = type(failure.cause)
        trace = "".join(traceback.format_exception(failure.cause))
        marks.append((headers.ERROR_EXCEPTION, f"{kind.__module__}.{kind.__qualname__}".encode()))
        marks.append((headers.ERROR_STACKTRACE, _tail(trace, STACKTRACE_LIMIT)))
    return marks


def _head(text: str, limit: int) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= limit else data[:limit].decode("utf-8", "ignore").encode() + _CUT


def _tail(text: str, limit: int) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= limit else _CUT + data[-limit:].decode("utf-8", "ignore").encode()
