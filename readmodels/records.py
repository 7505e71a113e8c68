"""What a Kafka record means to a view: a change of one aggregate, nothing, or something unreadable.

Pure. A change is either the aggregate's newest row or its deletion, at a version. Several changes of one
aggregate fold into one with the same effect, so how the broker cuts its answers makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from schemas.decoding import whole_number
from schemas.headers import AGGREGATE_VERSION
from schemas.ids import MAX_ID_LENGTH, is_id, is_part_key
from schemas.money import MAX_AMOUNT
from schemas.records import decode_event
from schemas.topics import MAX_RECORD_BYTES
from schemas.upcasting import Reader, UnsupportedVersion

Headers = Sequence[tuple[str, bytes | None]] | None
Row = TypeVar("Row")

MAX_VERSION: Final = MAX_AMOUNT
"""Lua compares versions as doubles."""

STAGE_DECODE: Final = "decode"
STAGE_PROJECT: Final = "project"

UNREADABLE_NAME: Final = "\udcff"
"""In the place of the first header's name: a name among them is not UTF-8. No header can be called so."""

UNREADABLE_HEADERS: Final[Sequence[tuple[str, bytes | None]]] = ((UNREADABLE_NAME, None),)
"""The headers of a record whose header names are not all UTF-8."""

_SHOWN_CHARACTERS: Final = 500
_SHOWN_KEY_BYTES: Final = 4 * MAX_ID_LENGTH


class Unreadable(Exception):
    """A record that no view can use; it belongs into the dead letters."""

    def __init__(self, code: str, message: str, stage: str) -> None:
        super().__init__(message)
        self.code = code
        self.stage = stage


class Change(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """What became of one aggregate. ``row`` None: it was deleted. ``version`` None: nobody knows at which.

    ``reset``: whatever stands there, of any version, is forgotten first; so says a deletion without a
    version, after which the aggregate may begin anew at version 1.
    """

    id: str
    version: int | None
    row: Row | None
    reset: bool = False


def read(
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    states: Reader[Any],
    project: Callable[[str, int, bytes], Row | None],
) -> Change[Row] | None:
    """Return the change that a record makes; None where no view shows it (parts, such as reservations).

    ``states`` reads what the record has for a state: ``project`` gets it as of its current version,
    whichever release wrote it; where it gives no row, that is a deletion. Raises Unreadable, and nothing
    else whatever the record is, except MemoryError.
    """
    try:
        if headers and headers[0][0] == UNREADABLE_NAME:
            raise Unreadable("malformed", "a header name is not UTF-8", STAGE_DECODE)
        identity = _identity(key)
        if not is_id(identity):
            if is_part_key(identity):
                return None
            raise Unreadable(
                "invalid_key", f"the key {_shown(identity)} is no aggregate id", STAGE_DECODE
            )
        if value is None:
            version = _deleted_at(headers)
            return Change(identity, version, None, reset=version is None)
        version, state = _state(value, states)
        try:
            return Change(identity, version, project(identity, version, state))
        except msgspec.MsgspecError as error:
            message = f"the state is not readable: {_shown(error)}"
            raise Unreadable("malformed", message, STAGE_DECODE) from error
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # a bug in a projection must not stop the partition
        message = f"the projection failed: {_shown(error)}"
        raise Unreadable("internal_error", message, STAGE_PROJECT) from error


def fold(changes: Iterable[Change[Row]]) -> list[Change[Row]]:
    """One change an aggregate, with the effect of all of them in their order."""
    newest: dict[str, Change[Row]] = {}
    for change in changes:
        before = newest.get(change.id)
        newest[change.id] = change if before is None else _after(before, change)
    return list(newest.values())


def _after(before: Change[Row], change: Change[Row]) -> Change[Row]:
    if change.version is None:
        return change
    known = before.version or 0
    if change.version > known or (change.row is None and change.version == known):
        return Change(change.id, change.version, change.row, before.reset)
    return before


def _identity(key: bytes | None) -> str:
    if key is None:
        raise Unreadable("invalid_key", "the record has no key", STAGE_DECODE)
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        message = f"the key {key[:_SHOWN_KEY_BYTES]!r} is not UTF-8"
        raise Unreadable("invalid_key", message, STAGE_DECODE) from error


def _deleted_at(headers: Headers) -> int | None:
    """The version in a tombstone's header; None without the header, or with one that is no version."""
    for name, value in headers or ():
        if name == AGGREGATE_VERSION:
            version = whole_number(value)
            if version is not None and 0 < version <= MAX_VERSION:
                return version
    return None


def _state(value: bytes, states: Reader[Any]) -> tuple[int, bytes]:
    if len(value) > MAX_RECORD_BYTES:
        message = f"{len(value)} bytes are more than an event can have"
        raise Unreadable("too_large", message, STAGE_DECODE)
    try:
        record = decode_event(value)
    except msgspec.MsgspecError as error:
        message = f"not an event record: {_shown(error)}"
        raise Unreadable("malformed", message, STAGE_DECODE) from error
    if not record.state:
        raise Unreadable("malformed", "the event record has no state", STAGE_DECODE)
    if not 0 < record.version <= MAX_VERSION:
        message = f"{_shown(record.version)} is no version"
        raise Unreadable("malformed", message, STAGE_DECODE)
    try:
        return record.version, states.current(record.state, record.state_version)
    except UnsupportedVersion as error:
        raise Unreadable("unsupported_schema_version", _shown(error), STAGE_DECODE) from error
    except msgspec.MsgspecError as error:
        raise Unreadable("malformed", f"not a state: {_shown(error)}", STAGE_DECODE) from error


def _shown(what: object) -> str:
    """Return the text of a value, cut to what fits into a message."""
    text = str(what) if isinstance(what, msgspec.MsgspecError) else repr(what)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}…"


def flat(**fields: Any) -> list[str]:
    """Return the fields of a Redis hash, without those that are None: name, value, name, value.

    Raises msgspec.ValidationError for a number that JSON, Lua or SQL would not keep exact.
    """
    found: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, int) and not -MAX_AMOUNT <= value <= MAX_AMOUNT:
            raise msgspec.ValidationError(f"{name} is out of range")
        found += (name, str(value))
    return found
