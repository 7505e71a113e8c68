"""What is read from topics and written to them: records, freed of the client library.

Half a dozen of these are made for every command, hence structs: they are made three times as fast
as named tuples, and with ``gc=False`` the collector does not visit them (they can be in no cycle).
"""

from collections.abc import Callable
from operator import methodcaller
from typing import Final

import msgspec
from confluent_kafka import Message

from schemas import headers, limits
from schemas.decoding import whole_number
from schemas.letters import Failure, letter_of

LATEST_MS: Final = 253_402_300_799_999
"""End of the year 9999, the last time that calendars have."""

Headers = headers.Marks
"""As the client library takes them; those that come in are bytes, or None where one has no value."""

_headers: Final[Callable[[Message], Headers | None]] = methodcaller("headers")
"""Where the client cannot decode a name, it returns a broken list *and* leaves an error behind. A plain
call, once the interpreter has specialised it, does not see that: the error is raised wherever Python looks
next, and reading the list takes the process down. A call through C is checked each time.
"""


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
    ``unreadable``: it has headers, but the client cannot read them, since a name of one is no UTF-8.
    """

    topic: str
    partition: int
    offset: int
    occurred_at_ms: int  # when it happened: see schemas.headers.OCCURRED_AT_MS
    key: bytes | None
    value: bytes | None
    headers: Headers
    sent_at_ms: int | None = None
    unreadable: bool = False

    @property
    def own_time_ms(self) -> int:
        """Return when it was sent, whatever its sender says of when it happened; epoch milliseconds UTC."""
        return self.occurred_at_ms if self.sent_at_ms is None else self.sent_at_ms

    @property
    def size(self) -> int:
        """Return the size of key, value and headers in memory, more or less."""
        return limits.record_bytes(self.key, self.value, self.headers)


def incoming(message: Message) -> IncomingRecord:
    """Return a consumed message (without an error) as plain data; its time is that of the header, if it has
    one. Never raises, whatever was written.
    """
    _, sent_at_ms = message.timestamp()
    marks = headers_of(message)
    unreadable = marks is None
    marks = marks or []
    at_ms = min(max(0, sent_at_ms), LATEST_MS)
    return IncomingRecord(
        message.topic(),  # type: ignore[arg-type]  # a record has a place; only errors have none
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        occurred_at_ms(marks, at_ms) if marks else at_ms,
        message.key(),
        message.value(),
        marks,
        at_ms,
        unreadable,
    )


def headers_of(message: Message) -> Headers | None:
    """Return a message's headers; None if the client cannot read them, since a name of one is no UTF-8.

    Ask a message once: the client's second answer is a list with holes, on which Python crashes.
    """
    try:
        return _headers(message) or []
    except SystemError:
        return None


def occurred_at_ms(marks: Headers, sent_at_ms: int) -> int:
    """Return when it happened: what the header says, if it says a time, else when it was sent."""
    for name, value in marks:
        if name == headers.OCCURRED_AT_MS:
            at_ms = whole_number(value)
            if at_ms is not None and at_ms <= LATEST_MS:
                return at_ms
    return sent_at_ms


def dead_letter(record: IncomingRecord, failure: Failure, topic: str) -> OutgoingRecord:
    """Return a record as it came, with the cause and the place in headers, for the topic of dead letters."""
    letter = letter_of(
        record.key,
        record.value,
        record.headers,
        failure=failure,
        place=(record.topic, record.partition, record.offset),
        at_ms=record.occurred_at_ms,
        unreadable=record.unreadable,
    )
    return OutgoingRecord(topic, 0, letter.key, letter.value, [*letter.headers])
