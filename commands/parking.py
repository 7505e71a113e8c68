"""What an operator can order about a record that could not be handled and holds its aggregate's key.

They are commands on the aggregate's own topic, so the single writer carries them out in its transaction,
once for each command id. Every aggregate takes them; none decides them (see processors/decider.py).
"""

from typing import Final

from pydantic import Field

from commands.aggregate import Command
from commands.text import Text
from schemas.records import MAX_COMMAND_BYTES

MAX_OFFSET: Final = 2**63 - 1
"""Kafka's."""

_OFFSET: Final = "Of the record that failed, on the commands topic; refused for any other."


class RetryParked(Command):
    """Judge it again, as it came; then all that waits behind it, in order."""

    offset: int = Field(ge=0, le=MAX_OFFSET, description=_OFFSET)
    by: Text = Field(description="Who orders it.")
    note: Text | None = Field(default=None, description="Why, in words for people.")


class DiscardParked(Command):
    """Reject it, and go on with what waits behind it."""

    offset: int = Field(ge=0, le=MAX_OFFSET, description=_OFFSET)
    by: Text = Field(description="Who orders it.")
    note: Text | None = Field(default=None, description="Why, in words for people.")


class EditParked(Command):
    """Judge other bytes in its place, at its time; they are a command with the same command id."""

    offset: int = Field(ge=0, le=MAX_OFFSET, description=_OFFSET)
    record: str = Field(
        min_length=1,
        max_length=MAX_COMMAND_BYTES,
        description="The command's record, as JSON text.",
    )
    by: Text = Field(description="Who orders it.")
    note: Text | None = Field(default=None, description="Why, in words for people.")


ParkingOrder = RetryParked | DiscardParked | EditParked
ORDERS: Final = (RetryParked, DiscardParked, EditParked)
