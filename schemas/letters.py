"""Dead letters: what is kept of a record that could not be handled, and what is said of its failure.

Pure. Used by each role that cannot handle a record: processors, projectors, payments' outbox. The names of
the headers are schemas/headers.py's. The invariants: a letter always fits a topic; the record's own headers,
key and value stay as they came, or the letter says which of them are cut; and no header of the sender can be
taken for one of the letter.
"""

import traceback
from hashlib import blake2b
from typing import Final

import msgspec

from schemas import headers, limits

MESSAGE_LIMIT: Final = 1_000
STACKTRACE_LIMIT: Final = 8_000
"""Bytes. A traceback's last lines say most, so it is cut at its beginning."""

KEPT_HEADER_BYTES: Final = 512
"""Bytes of a header that is kept of a record whose headers are cut."""

DIGEST_BYTES: Final = 16

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


class Letter(msgspec.Struct, frozen=True, gc=False):
    """A dead letter as it is written."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def letter_of(
    key: bytes | None,
    value: bytes | None,
    came: headers.Marks,
    *,
    failure: Failure,
    place: tuple[str, int, int],
    at_ms: int,
    unreadable: bool = False,
) -> Letter:
    """Return the dead letter of a record: whole if it fits, else its beginning, with the size and the digest
    of the whole value. ``place`` and ``at_ms`` as ``letter_marks``; ``unreadable``: the record has headers
    that the client could not read.
    """
    marks = letter_marks(came, failure, place, at_ms)
    cuts = ["headers"] if unreadable else []
    if limits.record_bytes(key, value, marks) > limits.MAX_RECORD_BYTES - limits.KIB:
        own = own_marks(came)
        kept = _kept_headers(own)
        if len(kept) < len(own) and not unreadable:
            cuts.append("headers")
        marks = letter_marks(kept, failure, place, at_ms)
        if len(value or b"") > limits.KEPT_VALUE_BYTES:
            cuts.append("value")
            marks += _of_the_whole(value or b"")
            value = (value or b"")[: limits.KEPT_VALUE_BYTES]
        if len(key or b"") > limits.KEPT_KEY_BYTES:
            cuts.append("key")
            key = (key or b"")[: limits.KEPT_KEY_BYTES]
    if cuts:
        marks.append((headers.ERROR_CUT, ",".join(cuts).encode()))
    return Letter(key, value, marks)


def letter_marks(
    came: headers.Marks, failure: Failure, place: tuple[str, int, int], at_ms: int
) -> list[tuple[str, bytes]]:
    """Headers of the dead letter of a record that came with these headers. ``place``: topic, partition and
    offset of the record; ``at_ms``: its time, epoch milliseconds UTC.

    Headers that came and are named like a letter's own are left out: the sender made them up, or the record
    is a letter that was sent again.
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
    marks: list[tuple[str, bytes]] = [*own_marks(came)]  # type: ignore[list-item]  # they came from the broker
    marks += ((name, _head(text, MESSAGE_LIMIT)) for name, text in said.items())
    if failure.cause is not None:
        kind = type(failure.cause)
        trace = "".join(traceback.format_exception(failure.cause))
        name = f"{kind.__module__}.{kind.__qualname__}"
        marks.append((headers.ERROR_EXCEPTION, _head(name, MESSAGE_LIMIT)))
        marks.append((headers.ERROR_STACKTRACE, _tail(trace, STACKTRACE_LIMIT)))
    return marks


def own_marks(came: headers.Marks) -> headers.Marks:
    """Return the record's own headers, without those that are named like a letter's."""
    return [mark for mark in came if not mark[0].startswith(headers.ERRORS)]


def _kept_headers(came: headers.Marks) -> headers.Marks:
    """Headers that are small, in their order, as long as all of them together are."""
    kept: headers.Marks = []
    room = limits.KEPT_HEADERS_BYTES
    for mark in came:
        size = limits.headers_bytes([mark])
        if size <= KEPT_HEADER_BYTES and size <= room:
            kept.append(mark)
            room -= size
    return kept


def _of_the_whole(value: bytes) -> list[tuple[str, bytes]]:
    digest = blake2b(value, digest_size=DIGEST_BYTES).hexdigest()
    return [
        (headers.ERROR_VALUE_BYTES, str(len(value)).encode()),
        (headers.ERROR_VALUE_DIGEST, digest.encode()),
    ]


def _head(text: str, limit: int) -> bytes:
    data = text[:limit].encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit:
        return data
    return data[:limit].decode("utf-8", "ignore").encode() + _CUT


def _tail(text: str, limit: int) -> bytes:
    data = text[-limit:].encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit:
        return data
    return _CUT + data[-limit:].decode("utf-8", "ignore").encode()
