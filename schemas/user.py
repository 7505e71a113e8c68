"""A user: events and state on the wire. Key: user id, a pseudonym that stays when the user is forgotten."""

from enum import StrEnum
from typing import ClassVar, Final

import msgspec

from schemas.decoding import Int64
from schemas.personal import Personal, sealed_from_here
from schemas.upcasting import Json


class UserRegistered(msgspec.Struct, frozen=True):
    """The user exists from here on."""

    UPCASTERS: ClassVar = (sealed_from_here,)

    name: Personal
    email: Personal | None = None


class UserDeactivated(msgspec.Struct, frozen=True):
    """The user may no longer order; what was ordered stays."""

    UPCASTERS: ClassVar = (sealed_from_here,)

    reason: Personal


class UserForgotten(msgspec.Struct, frozen=True):
    """Nobody can read the user's personal data any more. The id stays taken, what was ordered stays.

    ``by``: who ordered it, as an id of theirs. ``reason``: a code or the number of a request; words about
    a person would be personal data again.
    """

    FORGETS: ClassVar = True

    by: str
    reason: str


UserEvent = UserRegistered | UserDeactivated | UserForgotten


class UserStatus(StrEnum):
    """Where a user stands."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    FORGOTTEN = "forgotten"


def _may_be_forgotten(data: Json) -> Json:
    return data  # a status was added, which older readers do not know


class UserState(msgspec.Struct, frozen=True):
    """The whole user after an event. Times are epoch milliseconds, UTC. ``name`` is empty and ``email``
    null once the user is forgotten.
    """

    UPCASTERS: ClassVar = (_may_be_forgotten,)

    status: UserStatus
    name: str
    email: str | None
    registered_at_ms: Int64
    updated_at_ms: Int64


EVENTS: Final[tuple[type[UserEvent], ...]] = (UserRegistered, UserDeactivated, UserForgotten)
