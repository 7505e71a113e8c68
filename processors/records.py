"""What a processor writes: records for topics, before they are produced."""

from typing import NamedTuple

from confluent_kafka import Message

Headers = list[tuple[str, str | bytes | None]]
"""As the client library takes them; those that come in are bytes, or None where one has no value."""


class OutgoingRecord(NamedTuple):
    """One record of a transaction. ``partition`` is always explicit: it follows its aggregate's."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class IncomingRecord(NamedTuple):
    """One consumed record, freed of the client library, so that deciding can be tested without it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def incoming(message: Message) -> IncomingRecord:
    """A consumed message (without an error) as plain data."""
    _, timestamp_ms = message.timestamp()
    return IncomingRecord(
        message.topic(),  # type: ignore[arg-type]  # a record has a place; only errors have none
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        max(0, timestamp_ms),
        message.key(),
        message.value(),
        message.headers() or [],  # type: ignore[arg-type]
    )
