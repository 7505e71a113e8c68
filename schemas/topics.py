"""Every topic, as data: its name, how many partitions, and why it is configured as it is.

``commands``, ``events``, ``history``, ``outcomes`` and ``parked`` of one aggregate have the same number of
partitions: record *n* of each lies on the partition of its aggregate, and one processor owns them
together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas import limits

WEBHOOK: Final = "webhook"
DOMAIN: Final = ("user", "inventory", "order", "payment", "stream", WEBHOOK)
SAGA: Final = "saga"
AGGREGATES: Final = (*DOMAIN, SAGA)

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
MAX_RECORD_BYTES: Final = limits.MAX_RECORD_BYTES

IDEMPOTENCY_WINDOW_MS: Final = 48 * _HOUR_MS
"""Promised: a command that is sent again within this time after it was first sent gets its first outcome."""

COMMANDS_RETENTION_MS: Final = 7 * _DAY_MS
"""How long a command may wait for a processor."""

SEGMENT_MS: Final = 6 * _HOUR_MS
"""Kafka deletes whole segments, so a record stays for up to a segment's time longer than its retention."""

BROKER_LAG_MS: Final = 18 * _HOUR_MS
"""For what the broker takes to delete (5 minutes between looks by default, longer while it is down)."""

OUTCOMES_RETENTION_MS: Final = (
    IDEMPOTENCY_WINDOW_MS + COMMANDS_RETENTION_MS + SEGMENT_MS + BROKER_LAG_MS
)
"""How long command ids are remembered: 10 days. What remembers must outlive what can be repeated.

A repetition is sent at most the promised 48 hours after the command, then waits in the log for at most 7 days
and a segment's time. The first outcome is written no earlier than the command was sent. So whenever the
repetition is decided, after whatever outage, on whatever disk, the first outcome is still there; and so is
that of each command that can be read again when a group begins at the log's start.
"""

REPLIES_RETENTION_MS: Final = _HOUR_MS
REPLIES_SEGMENT_MS: Final = _HOUR_MS // 2

TOMBSTONE_RETENTION_MS: Final = 7 * _DAY_MS
"""How long a deletion can be read from a compacted topic; who was away longer starts from an empty state."""

DELIVERIES_RETENTION_MS: Final = 30 * _DAY_MS
"""How far back the log of deliveries goes, and with it what can be delivered once more by hand."""

_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "delete.retention.ms": str(TOMBSTONE_RETENTION_MS),
    "min.cleanable.dirty.ratio": "0.1",  # a rebuild reads little more than one record an aggregate
    "max.message.bytes": str(MAX_RECORD_BYTES),
}
ERASED_WITHIN_MS: Final = _DAY_MS
"""How long a replaced record of an aggregate with personal data may stay until the broker's cleaner has
to look at it. What is forgotten is unreadable from then on, for the key went with the record.
"""

LATEST_LOOK_MS: Final = _HOUR_MS
"""How much later than due the brokers and processors get to it: both look more often than that."""

SEGMENT_DEFAULT_MS: Final = 7 * _DAY_MS
"""Kafka's own ``segment.ms``. Retention deletes whole segments, so a record stays for up to that longer."""

PERSONAL: Final = frozenset({"user"})
"""Aggregates whose states and commands hold personal data."""

_ERASED: Final = _COMPACTED | {
    "max.compaction.lag.ms": str(ERASED_WITHIN_MS),
    "segment.ms": str(_HOUR_MS),  # only a closed segment is compacted
}
_FOR_EVER: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(MAX_RECORD_BYTES),
}


def _expires(ms: int, segment_ms: int = SEGMENT_MS) -> dict[str, str]:
    """By the broker's time: a sender's clock, or the time a sender sets, can neither shorten nor lengthen a
    record's life.
    """
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(ms),
        "retention.bytes": "-1",
        "segment.ms": str(segment_ms),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_RECORD_BYTES),
    }


_COMMANDS: Final = _expires(COMMANDS_RETENTION_MS) | {
    # Strangers write here. Without this the limit would be on compressed batches, of which one of 8 MiB can
    # take gigabytes in the memory of each reader; so the broker unpacks what comes in, and judges that.
    "compression.type": "uncompressed",
    "max.message.bytes": str(limits.MAX_INCOMING_BYTES),
}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it should be. ``config`` holds topic-level Kafka options as strings."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topics:
    """Names and specifications of all topics under one prefix."""

    prefix: str
    partitions: int
    reply_partitions: int = 16

    def commands(self, aggregate: str) -> str:
        """Commands, key = aggregate id."""
        return f"{self.prefix}.{aggregate}.commands"

    def events(self, aggregate: str) -> str:
        """Compacted: newest event and state of every aggregate."""
        return f"{self.prefix}.{aggregate}.events"

    def history(self, aggregate: str) -> str:
        """Every event for ever: the event store."""
        return f"{self.prefix}.{aggregate}.history"

    def outcomes(self, aggregate: str) -> str:
        """One outcome a command, key ``aggregate id/command id``: answers, and the memory of the
        idempotency.
        """
        return f"{self.prefix}.{aggregate}.outcomes"

    def parked(self, aggregate: str) -> str:
        """Compacted: commands that could not be judged, and those behind them; see schemas/parking.py."""
        return f"{self.prefix}.{aggregate}.parked"

    @property
    def replies(self) -> str:
        """Copies of outcomes for senders that wait, on the partition each of them asked for."""
        return f"{self.prefix}.replies"

    @property
    def webhook_deliveries(self) -> str:
        """What became of each attempt to deliver an event to a webhook, key = webhook id."""
        return f"{self.prefix}.webhook-deliveries"

    @property
    def dead_letters(self) -> str:
        """What could not be handled, bytes untouched, cause in headers."""
        return f"{self.prefix}.dead-letters"

    @property
    def audit(self) -> str:
        """What operators did about dead letters, for ever."""
        return f"{self.prefix}.audit"

    def specs(self) -> Iterator[TopicSpec]:
        """All topics, in a stable order."""
        for aggregate in AGGREGATES:
            yield TopicSpec(self.commands(aggregate), self.partitions, _COMMANDS)
            compacted = _ERASED if aggregate in PERSONAL else _COMPACTED
            yield TopicSpec(self.events(aggregate), self.partitions, compacted)
            yield TopicSpec(self.history(aggregate), self.partitions, _FOR_EVER)
            yield TopicSpec(
                self.outcomes(aggregate), self.partitions, _expires(OUTCOMES_RETENTION_MS)
            )
            yield TopicSpec(self.parked(aggregate), self.partitions, compacted)
        replies = _expires(REPLIES_RETENTION_MS, REPLIES_SEGMENT_MS)
        yield TopicSpec(self.replies, self.reply_partitions, replies)
        yield TopicSpec(self.webhook_deliveries, self.partitions, _expires(DELIVERIES_RETENTION_MS))
        yield TopicSpec(self.dead_letters, 1, _FOR_EVER)
        yield TopicSpec(self.audit, 1, _FOR_EVER)
