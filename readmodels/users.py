"""The view `users`: the profile of every user. What they ordered is the view `orders`."""

from __future__ import annotations

from typing import Final

from readmodels.documents import Collection, Document
from readmodels.records import flat
from schemas.decoding import decoder
from schemas.user import UserState, UserStatus

_decode: Final = decoder(UserState)

COLLECTION: Final = Collection("user")


def project(_user_id: str, version: int, state: bytes) -> Document | None:
    """Pure; None for a user who is forgotten. Raises msgspec.MsgspecError for what is no user's state."""
    user = _decode(state)
    if user.status is UserStatus.FORGOTTEN:
        return None
    return Document(
        flat(
            version=version,
            status=user.status.value,
            name=user.name,
            email=user.email,
            registered_at_ms=user.registered_at_ms,
            updated_at_ms=user.updated_at_ms,
        )
    )
