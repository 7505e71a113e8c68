"""What is read from topics and written to them: records, freed of the client library.

Half a dozen of these are made for every command, hence structs: they are made three times as fast
as named tuples, and with ``gc=False`` the collector does not visit them (they can be in no cycle).
"""

import msgspec
from confluent_kafka import Message

from schemas import headers

Headers = headers.Marks
"""As the client library takes them; those that come in are bytes, or None where one has no value."""


class OutgoingRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of a transaction. ``partition`` is always explicit: it follows its aggregate's."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class IncomingRecord(msgspec.Struct, frozen=True, gc=False):
    """One consumed record, freed of the client library, so that deciding can be tested without it.

    ``sent_at_ms``: the record's own time; None: the same as ``occurred_at_ms``.
    """

    topic: str
    partition: int
    offset: int
    occurred_at_ms: int  # when it happened: see schemas.headers.OCCURRED_AT_MS
    key: bytes | None
    value: bytes | None
    headers: Headers
    sent_at_ms: int | None = None


def incoming(message: Message) -> IncomingRecord:
    """A consumed message (without an error) as plain data; its time is that of the header, if it has one."""
    _, sent_at_ms = message.timestamp()
    marks: Headers = message.headers() or []  # type: ignore[assignment]
    at_ms = max(0, sent_at_ms)
    return IncomingRecord(
        message.topic(),  # type: ignore[arg-type]  # a record has a place; only errors have none
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        occurred_at_ms(marks, at_ms) if marks else at_ms,
        message.key(),
        message.value(),
        marks,
        sent_at_ms=at_ms,
    )


def occurred_at_ms(marks: Headers, sent_at_ms: int) -> int:
    """When it happened: what the header says, if it says a time, else when it was sent."""
    for name, value in marks:
        if name == headers.OCCURRED_AT_MS and value and len(value) <= 15 and value.isdigit():
            return int(value)
    return sent_at_ms
