"""Names of the Kafka headers, written once. Values are UTF-8 text.

``traceparent`` follows W3C Trace Context; the ``errors.*`` names on dead letters follow Kafka
Connect's dead letter queue (KIP-298) and Kafka Streams' (KIP-1034) under a prefix of our own.
"""

from typing import Final

from schemas import limits

CORRELATION_ID: Final = "correlation-id"
"""Id of the whole conversation; a command without one starts a conversation named by its command id."""

CAUSATION_ID: Final = "causation-id"
"""Id of the message that directly caused this one; for an event, the command's id."""

TRACEPARENT: Final = "traceparent"
"""W3C Trace Context, passed on unchanged from a command to what follows from it."""

REPLY_PARTITION: Final = "reply-partition"
"""On a command: the partition of ``<prefix>.replies`` where its sender waits for the outcome."""

REPLY_TOKEN: Final = "reply-token"
"""On a command whose sender waits, optional: text of at most 64 bytes. The reply carries the same text, or an
empty one, so that callers who wait for one command id with different contents know each their own reply."""

MAX_REPLY_TOKEN_BYTES: Final = 64

ANSWER_TO: Final = "answer-to"
"""On a command of a saga, ``<saga id>/<token>``: who gets the outcome as a command of their own. It is
passed on to what follows, so an answer that takes a detour over a payment gateway finds its way, too."""

OCCURRED_AT_MS: Final = "occurred-at-ms"
"""On a command, optional: when it happened, if that is not when it was sent; decimal epoch milliseconds.
What is no number, or beyond the year 9999, counts as none. The record's own time stays that of the broker, by
which Kafka's retention goes. Commands of sagas and webhooks take no other time than that: timers, the end of
former secrets and the first event that is delivered depend on it."""

AGGREGATE_VERSION: Final = "aggregate-version"
"""On a tombstone, which has no value: the version at which the aggregate (or part) was deleted."""

ERROR_CODE: Final = "orderflow.errors.code"
ERROR_MESSAGE: Final = "orderflow.errors.message"
ERROR_STAGE: Final = "orderflow.errors.stage"
ERROR_TOPIC: Final = "orderflow.errors.topic"
ERROR_PARTITION: Final = "orderflow.errors.partition"
ERROR_OFFSET: Final = "orderflow.errors.offset"
ERROR_TIMESTAMP: Final = "orderflow.errors.timestamp"
ERROR_STACKTRACE: Final = "orderflow.errors.stacktrace"
ERROR_EXCEPTION: Final = "orderflow.errors.exception"
"""Class of the exception, where there was one."""

ERROR_ATTEMPT: Final = "orderflow.errors.attempt"
"""How often the record was tried, from 1."""

ERROR_HOLDS_KEY: Final = "orderflow.errors.holds-key"
"""``true`` where what comes after the record under its key waits until it is retried, edited or discarded."""

ERROR_CUT: Final = "orderflow.errors.cut"
"""Which of ``key``, ``value`` and ``headers`` are not whole in the dead letter, separated by commas: the
record was too large, or the names of its headers are no UTF-8. The whole record is on its topic."""

ERROR_VALUE_BYTES: Final = "orderflow.errors.value-bytes"
"""Size of the whole value, where it is cut."""

ERROR_VALUE_DIGEST: Final = "orderflow.errors.value-digest"
"""Digest of the whole value, where it is cut: blake2b of 16 bytes, hexadecimal."""

ERRORS: Final = ERROR_CODE.removesuffix("code")
"""How the names begin that only the writer of a dead letter sets; a sender's do not count."""

Marks = list[tuple[str, str | bytes | None]]
"""As the Kafka client takes and gives them."""


def as_bytes(marks: Marks) -> list[tuple[str, bytes | None]]:
    """The same, with values as they stand on a topic."""
    return [(name, v.encode() if isinstance(v, str) else v) for name, v in marks]


PASSED_ON: Final = frozenset({CORRELATION_ID, TRACEPARENT, ANSWER_TO})
"""What is passed on from a record to all that follows from it."""


def passed_on_bytes(marks: Marks) -> int:
    """Return the size of the headers that are passed on."""
    return limits.headers_bytes(mark for mark in marks if mark[0] in PASSED_ON)


def following(event_id: str, marks: Marks, *also: str) -> Marks:
    """Return the headers of a command that follows from an event: the same conversation and trace, a new
    cause; ``also`` names what else is passed on. Headers that are too large to be passed on are left out.
    """
    passed = [mark for mark in marks if mark[0] in (CORRELATION_ID, TRACEPARENT, *also)]
    if limits.headers_bytes(passed) > limits.MAX_PASSED_ON_BYTES:
        passed = []
    return [(CAUSATION_ID, event_id.encode()), *passed]
