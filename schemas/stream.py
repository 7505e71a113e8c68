"""A plain stream: events of somebody else's types, kept in order. Key: stream id.

For what has no decider here. The event that stands in the history is an ``Appended`` with the other's
type and data in it; the event store shows what is inside.
"""

from typing import Any, Final

import msgspec

from schemas.decoding import Int64


class Appended(msgspec.Struct, frozen=True):
    """An event of a type that only its writer knows."""

    type: str
    data: dict[str, Any]


StreamEvent = Appended


class StreamState(msgspec.Struct, frozen=True):
    """How far the stream is; what its events mean is its readers' affair. Times are epoch milliseconds,
    UTC.
    """

    last_type: str
    begun_at_ms: Int64
    appended_at_ms: Int64


EVENTS: Final[tuple[type[StreamEvent], ...]] = (Appended,)
