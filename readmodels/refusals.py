"""Tell what Redis refuses because of what it was sent from what it refuses to everybody for now.

Pure. Used by who applies changes: `feed` and `filling`. The text alone does not decide: a server that is
full, read-only or loading words its refusals in its own way, so the caller also sends `positions.probe`, a
write that changes nothing. A server that takes it refuses the content.
"""

from __future__ import annotations

from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from readmodels.records import STAGE_PROJECT, Unreadable

CODE: Final = "refused_by_view"
"""Code of the dead letter of a record whose row Redis refuses."""

_OUTSIDE: Final = (
    AskError,  # MovedError is one
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_OUTSIDE_WORDS: Final = ("OOM ", "READONLY ", "LOADING ", "MISCONF ", "BUSY ", "NOREPLICAS ")
"""What a script reports of the server: the library knows these only where a reply begins with them."""

_SHOWN_CHARACTERS: Final = 500


def may_be_content(fault: Exception) -> bool:
    """True if Redis answered and the answer says nothing of its own condition."""
    return (
        isinstance(fault, ResponseError)
        and not isinstance(fault, _OUTSIDE)
        and not any(word in str(fault) for word in _OUTSIDE_WORDS)
    )


def unreadable(refusal: Exception) -> Unreadable:
    """Return the cause of the dead letter of the one record that was refused."""
    text = str(refusal)[:_SHOWN_CHARACTERS]
    if may_be_content(refusal):
        cause = Unreadable(CODE, f"Redis refuses its row: {text}", STAGE_PROJECT)
    else:
        message = f"its row could not be written: {type(refusal).__name__}: {text}"
        cause = Unreadable("internal_error", message, STAGE_PROJECT)
    cause.__cause__ = refusal
    return cause
