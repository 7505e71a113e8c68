"""A command that somebody plans to send, and what is to come of it.

The generated shop and the imported one both end in these, so that one feeder sends them and one
check proves the views. Pure: nothing here talks to a server.
"""

from collections import Counter
from dataclasses import dataclass

from commands.aggregate import Command
from runtime.client import OutgoingCommand
from schemas.rejections import Code
from schemas.upcasting import version_of


@dataclass(frozen=True, slots=True)
class PlannedCommand:
    """One command in the order in which it has to be sent.

    ``data`` is the command's model, or raw JSON where the point is that no model would accept it.
    ``expected`` is None when the command is to be accepted, else the code it is to be refused with.
    A ``repeated`` command was sent before under the same id with the same data: its outcome is the
    first one again and nothing happens. ``occurred_at_ms``: when it happened; None for now.
    """

    aggregate: str
    aggregate_id: str
    type: str
    data: Command | bytes
    command_id: str
    expected: Code | None = None
    repeated: bool = False
    expected_version: int | None = None
    occurred_at_ms: int | None = None

    def json(self) -> bytes:
        """The command's own fields as they go over the wire."""
        if isinstance(self.data, bytes):
            return self.data
        return self.data.model_dump_json().encode()

    def outgoing(self) -> OutgoingCommand:
        """What a CommandClient sends."""
        return OutgoingCommand(
            aggregate=self.aggregate,
            aggregate_id=self.aggregate_id,
            type=self.type,
            data=self.json(),
            command_id=self.command_id,
            schema_version=version_of(type(self.data)),
            expected_version=self.expected_version,
            occurred_at_ms=self.occurred_at_ms,
        )


@dataclass(slots=True)
class ExpectedOrder:
    """An order as the views have to show it; ``total`` in minor units of ``currency``."""

    user_id: str
    currency: str
    total: int
    lines: int
    status: str = "created"
    created_at_ms: int | None = None


@dataclass(slots=True)
class ExpectedStock:
    """The pieces of one SKU as the views have to show them."""

    on_hand: int = 0
    reserved: int = 0

    @property
    def available(self) -> int:
        """What can still be reserved."""
        return self.on_hand - self.reserved


class ExpectedViews:
    """Everything the views have to say at the end, and how many commands of which code were refused."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.orders: dict[str, ExpectedOrder] = {}
        self.stock: dict[str, ExpectedStock] = {}
        self.rejections: Counter[Code] = Counter()
