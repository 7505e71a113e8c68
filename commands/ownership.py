"""Proof of who made an order, a reservation or a payment, so that nobody undoes what another has made.

A command that makes something may carry `made_by`, which stands in the event and the state. A command
that undoes may carry `only_if_made_by`, and is refused where the maker is another, or nobody knows
who it was. A saga signs what it makes and what it undoes (sagas/react.py). Pure; for the aggregates' files.
"""

from typing import Annotated, Final

from pydantic import Field

from schemas.ids import Id
from schemas.rejections import Code, Rejection

MADE_BY: Final = "made_by"
ONLY_IF_MADE_BY: Final = "only_if_made_by"

Maker = Annotated[Id | None, Field(description="Who makes it, if only the maker may undo it.")]
"""Type of the field ``made_by``."""

OnlyMaker = Annotated[
    Id | None,
    Field(description="Refuse unless it was made with this `made_by`; anybody's if left out."),
]
"""Type of the field ``only_if_made_by``."""


def refuse_another(what: str, made_by: str | None, only: str | None) -> Rejection | None:
    """Return the refusal of an undoing by another than the maker, or None."""
    if only is None or only == made_by:
        return None
    message = f"{what} was not made by {only}, so it is not touched"
    return Rejection(Code.MADE_BY_ANOTHER, message, ONLY_IF_MADE_BY)
