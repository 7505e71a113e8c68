"""A webhook: a subscription to events over HTTP; its events and state, the log of its deliveries, and
the ids of what is delivered. Key: webhook id.

Signing secrets stand in the events and the state: who can read ``<prefix>.webhook.*`` can sign. They are
shown by no command but the one that makes them.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import msgspec

from schemas import inventory, order, payment, saga, stream, topics, user
from schemas.decoding import Int64

EVENTS_OF: Final[Mapping[str, tuple[type[msgspec.Struct], ...]]] = {
    "user": user.EVENTS,
    "inventory": inventory.EVENTS,
    "order": order.EVENTS,
    "payment": payment.EVENTS,
    "stream": stream.EVENTS,
    topics.SAGA: saga.EVENTS,
}
"""What can be subscribed to. Not the webhooks' own events: they hold secrets."""

ALL_OF_IT: Final = "*"

EVENT_TYPES: Final = tuple(
    f"{aggregate}.{name}"
    for aggregate, events in EVENTS_OF.items()
    for name in (ALL_OF_IT, *(event.__name__ for event in events))
)
"""As they stand in a subscription and in the ``type`` of what is delivered: ``order.OrderShipped``;
``order.*`` is every event of orders, also those that are still to be invented.
"""

MESSAGE_ID_PATTERN: Final = r"^evt_[0-9a-f]{32}$"


def message_id(
    topic: str, aggregate_id: str, version: int, event_id: str, written_at_ms: int
) -> str:
    """Return the ``webhook-id`` of an event: the same in every delivery of it, to whomever.

    A hash, because the specification wants an id in which nobody can place a full stop; of what names
    an event over all pipelines. The topic has the prefix in its name. ``written_at_ms``, the time of the
    event's record, tells a topic that was made again under the same name. Both stay in a copy of the log.
    """
    # A slash is in no id (schemas/ids.py), so two events never give the same text.
    return _hashed(f"{topic}/{aggregate_id}/{version}/{event_id}/{written_at_ms}")


def former_message_id(aggregate: str, aggregate_id: str, version: int) -> str:
    """Return the id that releases before the scope gave an event. Operators may still name it."""
    return _hashed(f"{aggregate}/{aggregate_id}/{version}")


def _hashed(text: str) -> str:
    return f"evt_{blake2b(text.encode(), digest_size=16).hexdigest()}"


class WebhookCreated(msgspec.Struct, frozen=True):
    """Events of these types are delivered from now on; ``from_beginning``: and all that ever were."""

    url: str
    event_types: tuple[str, ...]
    secret: str
    description: str | None = None
    from_beginning: bool = False


class WebhookUpdated(msgspec.Struct, frozen=True):
    """How it is from now on. An aggregate that was not named before is followed from this time on."""

    url: str
    event_types: tuple[str, ...]
    description: str | None = None


class WebhookSecretRotated(msgspec.Struct, frozen=True):
    """Signed with the new secret, and for ``overlap_ms`` with the one before it, too."""

    secret: str
    overlap_ms: Int64


class WebhookPaused(msgspec.Struct, frozen=True):
    """Nothing is delivered; where it stands is kept."""

    reason: str


class WebhookResumed(msgspec.Struct, frozen=True):
    """Delivery goes on where it stood."""


class WebhookDeleted(msgspec.Struct, frozen=True):
    """Nothing is delivered any more. The id is not used again."""


class WebhookEventSkipped(msgspec.Struct, frozen=True):
    """This event is to be passed: whoever waits behind it goes on without it."""

    message_id: str
    reason: str


class WebhookRedeliveryRequested(msgspec.Struct, frozen=True):
    """One event once more, out of order. Its place in the aggregate's history."""

    message_id: str
    aggregate: str
    partition: Int64
    offset: Int64


class WebhookTestRequested(msgspec.Struct, frozen=True):
    """A message that says nothing, to see whether it arrives."""


WebhookEvent = (
    WebhookCreated
    | WebhookUpdated
    | WebhookSecretRotated
    | WebhookPaused
    | WebhookResumed
    | WebhookDeleted
    | WebhookEventSkipped
    | WebhookRedeliveryRequested
    | WebhookTestRequested
)


class WebhookStatus(StrEnum):
    """Whether it is delivered to; commands/webhook.py has the table of moves."""

    ACTIVE = "active"
    PAUSED = "paused"
    DELETED = "deleted"


class WebhookSecret(msgspec.Struct, frozen=True):
    """``whsec_`` and base64. ``until_ms``: a former one, signed with until then; None: the present one."""

    secret: str
    until_ms: Int64 | None = None


class WebhookState(msgspec.Struct, frozen=True):
    """The whole subscription after an event.

    ``secrets``: the present one first. ``since``: for each aggregate that is followed, from which time
    on (0: from the beginning). ``skipped``: message ids to be passed, the newest of them. A deleted one
    keeps no secret.
    """

    status: WebhookStatus
    url: str
    event_types: tuple[str, ...]
    secrets: tuple[WebhookSecret, ...]
    since: dict[str, Int64]
    created_at_ms: Int64
    updated_at_ms: Int64
    description: str | None = None
    pause_reason: str | None = None
    skipped: tuple[str, ...] = ()


class DeliveryResult(StrEnum):
    """What came of one attempt, or why there was none."""

    DELIVERED = "delivered"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPIRED = "expired"


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Value on ``<prefix>.webhook-deliveries``, key = webhook id: one attempt to deliver one event.

    ``attempt`` counts from 1, anew after a restart of the role; 0: there was none. ``by_hand``: asked
    for by an operator, out of order. ``topic``, ``partition``, ``offset``: the event's place. ``status``
    is that of HTTP, ``error`` says what happened instead of an answer, ``latency_ms`` how long it took.
    """

    webhook: str
    message_id: str
    type: str
    aggregate: str
    aggregate_id: str
    version: Int64
    topic: str
    partition: Int64
    offset: Int64
    result: DeliveryResult
    attempt: Int64
    at_ms: Int64
    latency_ms: Int64 = 0
    status: Int64 | None = None
    error: str | None = None
    by_hand: bool = False


EVENTS: Final[tuple[type[WebhookEvent], ...]] = (
    WebhookCreated,
    WebhookUpdated,
    WebhookSecretRotated,
    WebhookPaused,
    WebhookResumed,
    WebhookDeleted,
    WebhookEventSkipped,
    WebhookRedeliveryRequested,
    WebhookTestRequested,
)


def aggregate_of(event_type: str) -> str:
    """``order`` of ``order.OrderShipped`` and of ``order.*``."""
    return event_type.partition(".")[0]


def wants(event_types: tuple[str, ...], event_type: str) -> bool:
    """Whether a subscription to these types gets an event of that type."""
    return event_type in event_types or f"{aggregate_of(event_type)}.{ALL_OF_IT}" in event_types
