"""Identifiers of aggregates, commands and the parts of an aggregate.

An id is a record key, a piece of a Redis key and a word on a command line, so its alphabet leaves
out what those give a meaning of their own: ``/`` (parts), ``{`` and ``}`` (Redis hash tags),
control characters.
"""

import re
import secrets
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import StringConstraints

MAX_ID_LENGTH: Final = 128
ID_PATTERN: Final = r"^[A-Za-z0-9](?:[A-Za-z0-9 ._:@+\-]{0,126}[A-Za-z0-9._:@+\-])?$"
PART_SEPARATOR: Final = "/"
_END: Final = b"saga-end" + PART_SEPARATOR.encode()

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN, max_length=MAX_ID_LENGTH)]
"""1 to 128 characters: letters, digits and ``._:@+-``, blanks inside; it starts with a letter or digit."""

_is_id = re.compile(ID_PATTERN, re.ASCII).fullmatch
_is_hash = re.compile("[0-9a-f]{128}").fullmatch


def is_id(text: str) -> bool:
    """Whether ``text`` can be an aggregate id, a command id or a part id."""
    return _is_id(text) is not None


def part_key(aggregate_id: str, part_id: str) -> str:
    """Record key of one part of an aggregate, e.g. the reservation ``o-7`` of SKU ``A`` is ``A/o-7``."""
    return f"{aggregate_id}{PART_SEPARATOR}{part_id}"


def is_part_key(key: str) -> bool:
    """Whether a key of an events topic names a part (a reservation) and not the aggregate itself."""
    return PART_SEPARATOR in key


def outcome_key(aggregate_id: bytes, command_id: bytes) -> bytes:
    """Record key of an outcome: command ids are unique within their aggregate."""
    return aggregate_id + b"/" + command_id


def reply_key(aggregate: str, aggregate_id: str, command_id: str) -> bytes:
    """Record key of a reply, by which a waiting client knows its own without decoding the others'."""
    return f"{aggregate}{PART_SEPARATOR}{aggregate_id}{PART_SEPARATOR}{command_id}".encode()


def derived_id(*parts: str) -> str:
    """An id of several, the same every time: joined with dots, or a hash where that is too long."""
    joined = ".".join(parts)
    return joined if len(joined) <= MAX_ID_LENGTH else blake2b(joined.encode()).hexdigest()


SCOPE_BYTES: Final = 6


def new_scope() -> str:
    """Draw a scope: 12 hexadecimal digits that no other pipeline has and no client guesses beforehand."""
    return secrets.token_hex(SCOPE_BYTES)


def scoped_id(identity: str, scope: str) -> str | None:
    """Return an id of the pipeline's own that follows from a client's id; None without a scope."""
    return derived_id(identity, scope) if scope else None


def can_be_scoped(text: str, identity: str) -> bool:
    """Return True if ``scoped_id`` can make ``text`` of ``identity``, under one scope or another."""
    if len(identity) + 1 + 2 * SCOPE_BYTES > MAX_ID_LENGTH:
        return _is_hash(text) is not None
    joined, _, scope = text.rpartition(".")
    return is_id(text) and joined == identity and scope != ""


def end_key(saga_id: str) -> bytes:
    """Record key, on the replies topic, of how a saga ended."""
    return _END + saga_id.encode()


def is_end_key(key: bytes) -> bool:
    """Return True if a key of the replies topic is that of a saga's end."""
    return key.startswith(_END)
