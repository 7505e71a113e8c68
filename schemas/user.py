"""A user: events and state on the wire. Key: user id."""

from enum import StrEnum
from typing import Final

import msgspec


class UserRegistered(msgspec.Struct, frozen=True):
    """The user exists from here on."""

    name: str
    email: str | None = None


class UserDeactivated(msgspec.Struct, frozen=True):
    """The user may no longer order; what was ordered stays."""

    reason: str


UserEvent = UserRegistered | UserDeactivated


class UserStatus(StrEnum):
    """Where a user stands."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"


class UserState(msgspec.Struct, frozen=True):
    """The whole user after an event. Times are epoch milliseconds, UTC."""

    status: UserStatus
    name: str
    email: str | None
    registered_at_ms: int
    updated_at_ms: int


EVENTS: Final[tuple[type[UserEvent], ...]] = (UserRegistered, UserDeactivated)
