"""A webhook: a subscription to events, which the role `webhooks` delivers over HTTP.

Created once, paused and resumed, deleted for good. What an operator wants done by hand (an event once
more, an event passed by, a test) is a command, too: it has an outcome, survives every crash, and stands
in the history.

Imported through the table in commands/__init__.py. Laws: the status moves along ``MOVES`` and no other
way; the first secret is the present one and has no end; ``since`` names exactly the aggregates of
``event_types``; a deleted webhook has no secret.
"""

from collections.abc import Mapping
from typing import Annotated, Final, assert_never

from msgspec.structs import replace
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.text import Text
from schemas.rejections import Code, Rejection
from schemas.webhook import (
    EVENT_TYPES,
    EVENTS,
    EVENTS_OF,
    MESSAGE_ID_PATTERN,
    WebhookCreated,
    WebhookDeleted,
    WebhookEvent,
    WebhookEventSkipped,
    WebhookPaused,
    WebhookRedeliveryRequested,
    WebhookResumed,
    WebhookSecret,
    WebhookSecretRotated,
    WebhookState,
    WebhookStatus,
    WebhookTestRequested,
    WebhookUpdated,
    aggregate_of,
)

MOVES: Final[Mapping[WebhookStatus, tuple[WebhookStatus, ...]]] = {
    WebhookStatus.ACTIVE: (WebhookStatus.PAUSED, WebhookStatus.DELETED),
    WebhookStatus.PAUSED: (WebhookStatus.ACTIVE, WebhookStatus.DELETED),
    WebhookStatus.DELETED: (),
}
"""From each status, where a webhook can go."""

MOST_TYPES: Final = len(EVENT_TYPES)
MOST_SKIPPED: Final = 100
"""Of events to be passed the newest so many are kept; the list is in the state and must not grow."""

MOST_SECRETS: Final = 3
OVERLAP_MS: Final = 24 * 3_600_000
LONGEST_OVERLAP_MS: Final = 7 * OVERLAP_MS

_PORT: Final = (
    "80|443|102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-5][0-9]{4}"
    "|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
)
URL_PATTERN: Final = (
    r"^https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    rf"(?::(?:{_PORT}))?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?$"
)
"""http or https; no user, no password, no fragment; port 80, 443 or one from 1024 on: below are mail,
remote shells and the like. What address the name stands for is checked when it is connected to."""

MAX_URL: Final = 1_000

_GROUP: Final = "[A-Za-z0-9+/]"
SECRET_PATTERN: Final = (
    rf"^whsec_(?:(?:{_GROUP}{{4}}){{8,20}}(?:{_GROUP}{{4}}|{_GROUP}{{2}}==|{_GROUP}{{3}}=)?"
    rf"|(?:{_GROUP}{{4}}){{21}}(?:{_GROUP}{{2}}==)?)$"
)
"""Base64 of 24 to 64 bytes, as Standard Webhooks has it."""


def _known(event_type: str) -> str:
    if event_type not in EVENT_TYPES:
        raise PydanticCustomError(
            "event_type", "There is no event type {type}", {"type": event_type}
        )
    return event_type


Url = Annotated[str, Field(pattern=URL_PATTERN, max_length=MAX_URL)]
Secret = Annotated[str, Field(pattern=SECRET_PATTERN)]
EventTypes = Annotated[
    tuple[
        Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": [*EVENT_TYPES]})],
        ...,
    ],
    Field(min_length=1, max_length=MOST_TYPES),
]
MessageId = Annotated[str, Field(pattern=MESSAGE_ID_PATTERN)]
_AggregateName = Annotated[str, Field(pattern=rf"^(?:{'|'.join(EVENTS_OF)})$")]


class CreateWebhook(Command):
    """Subscribe; the webhook id is the record key."""

    url: Url = Field(description="Where events are posted to: http or https, no user, no fragment.")
    event_types: EventTypes = Field(description="Which events: `order.OrderShipped`, or `order.*`.")
    secret: Secret = Field(
        description="Signs what is delivered: `whsec_`, base64 of 24 to 64 bytes."
    )
    description: Text | None = Field(default=None, description="What it is for, in words.")
    from_beginning: bool = Field(
        default=False, description="Deliver all that ever happened, and not only from now on."
    )


class UpdateWebhook(Command):
    """Change what is given; what is left out stays. Accepted with no event when nothing changes."""

    url: Url | None = Field(default=None, description="Where events are posted to from now on.")
    event_types: EventTypes | None = Field(default=None, description="Which events from now on.")
    description: Text | None = Field(default=None, description="What it is for, in words.")


class RotateWebhookSecret(Command):
    """Sign with another secret; for a while with the former one, too. Accepted with no event when it is
    the present one.
    """

    secret: Secret = Field(description="The new one: `whsec_`, base64 of 24 to 64 bytes.")
    overlap_ms: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_MS)] = Field(
        default=OVERLAP_MS, description="How long the former one signs, too, in milliseconds."
    )


class PauseWebhook(Command):
    """Deliver nothing until it is resumed; nothing is lost. Accepted with no event when it is paused."""

    reason: Text = Field(description="Why, in words for people.")


class ResumeWebhook(Command):
    """Go on where it stood. Accepted with no event when it is active."""


class DeleteWebhook(Command):
    """Deliver nothing any more. Accepted with no event when it is deleted already."""


class SkipWebhookEvent(Command):
    """Pass an event that the receiver will never take. Accepted with no event when it is so already."""

    message_id: MessageId = Field(
        description="The event's `webhook-id`, see the log of deliveries."
    )
    reason: Text = Field(description="Why, in words for people.")


class RequestRedelivery(Command):
    """Deliver one event once more, now and out of order; also to a webhook that is paused."""

    message_id: MessageId = Field(
        description="The event's `webhook-id`, see the log of deliveries."
    )
    aggregate: _AggregateName = Field(description="Whose history has the event.")
    partition: Annotated[int, Field(ge=0, le=1023)] = Field(description="Its partition there.")
    offset: Annotated[int, Field(ge=0, le=2**53 - 1)] = Field(description="Its offset there.")


class TestWebhook(Command):
    """Deliver a message that says nothing, to see whether it arrives; also where it is paused."""

    __test__ = False  # no test of pytest's


WebhookCommand = (
    CreateWebhook
    | UpdateWebhook
    | RotateWebhookSecret
    | PauseWebhook
    | ResumeWebhook
    | DeleteWebhook
    | SkipWebhookEvent
    | RequestRedelivery
    | TestWebhook
)


def decide(loaded: Loaded, command: WebhookCommand) -> Decision:
    """What follows from the command, or why nothing does."""
    webhook: WebhookState | None = loaded.root
    if isinstance(command, CreateWebhook):
        return _create(webhook, command)
    if webhook is None:
        return Rejection(Code.WEBHOOK_NOT_FOUND, "no webhook has this id")
    if webhook.status is WebhookStatus.DELETED:
        gone = Rejection(Code.INVALID_TRANSITION, "the webhook is deleted, and that is final")
        return () if isinstance(command, DeleteWebhook) else gone
    match command:
        case UpdateWebhook():
            return _update(webhook, command)
        case RotateWebhookSecret(secret=secret, overlap_ms=overlap_ms):
            same = secret == webhook.secrets[0].secret
            return () if same else (WebhookSecretRotated(secret, overlap_ms),)
        case PauseWebhook(reason=reason):
            paused = webhook.status is WebhookStatus.PAUSED
            return () if paused else (WebhookPaused(reason),)
        case ResumeWebhook():
            return () if webhook.status is WebhookStatus.ACTIVE else (WebhookResumed(),)
        case DeleteWebhook():
            return (WebhookDeleted(),)
        case SkipWebhookEvent(message_id=message_id, reason=reason):
            known = message_id in webhook.skipped
            return () if known else (WebhookEventSkipped(message_id, reason),)
        case RequestRedelivery():
            place = (command.aggregate, command.partition, command.offset)
            return (WebhookRedeliveryRequested(command.message_id, *place),)
        case TestWebhook():
            return (WebhookTestRequested(),)
        case _:
            assert_never(command)


def _create(webhook: WebhookState | None, command: CreateWebhook) -> Decision:
    if webhook is not None:
        message = f"a webhook with this id exists already, and is {webhook.status}"
        return Rejection(Code.WEBHOOK_ALREADY_EXISTS, message)
    types = _each_once(command.event_types)
    return (
        WebhookCreated(
            command.url, types, command.secret, command.description, command.from_beginning
        ),
    )


def _update(webhook: WebhookState, command: UpdateWebhook) -> Decision:
    types = webhook.event_types if command.event_types is None else _each_once(command.event_types)
    description = webhook.description if command.description is None else command.description
    url = command.url or webhook.url
    if (url, types, description) == (webhook.url, webhook.event_types, webhook.description):
        return ()
    return (WebhookUpdated(url, types, description),)


def _each_once(event_types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event_types))


def evolve(loaded: Loaded, event: WebhookEvent, at_ms: int) -> Loaded:
    """The webhook after the event."""
    if isinstance(event, WebhookCreated):
        return Loaded(_created(event, at_ms))
    return Loaded(replace(_changed(loaded.root, event, at_ms), updated_at_ms=at_ms))


def _created(event: WebhookCreated, at_ms: int) -> WebhookState:
    start = 0 if event.from_beginning else at_ms
    return WebhookState(
        WebhookStatus.ACTIVE,
        event.url,
        event.event_types,
        (WebhookSecret(event.secret),),
        _followed(event.event_types, {}, start),
        at_ms,
        at_ms,
        event.description,
    )


def _changed(webhook: WebhookState, event: WebhookEvent, at_ms: int) -> WebhookState:
    match event:
        case WebhookUpdated(url, event_types, description):
            since = _followed(event_types, webhook.since, at_ms)
            return replace(
                webhook, url=url, event_types=event_types, since=since, description=description
            )
        case WebhookSecretRotated():
            return replace(webhook, secrets=_rotated(webhook.secrets, event, at_ms))
        case WebhookPaused(reason):
            return replace(webhook, status=WebhookStatus.PAUSED, pause_reason=reason)
        case WebhookResumed():
            return replace(webhook, status=WebhookStatus.ACTIVE, pause_reason=None)
        case WebhookDeleted():
            return replace(
                webhook, status=WebhookStatus.DELETED, pause_reason=None, secrets=(), skipped=()
            )
        case WebhookEventSkipped(message_id):
            return replace(webhook, skipped=(*webhook.skipped, message_id)[-MOST_SKIPPED:])
        case WebhookRedeliveryRequested() | WebhookTestRequested():
            return webhook  # the role reads them in the history
        case WebhookCreated():
            raise AssertionError("a webhook is created once")
        case _:
            assert_never(event)


def _followed(
    event_types: tuple[str, ...], since: Mapping[str, int], start_ms: int
) -> dict[str, int]:
    """For each aggregate of the types since when: what was followed before goes on."""
    names = dict.fromkeys(map(aggregate_of, event_types))
    return {name: since.get(name, start_ms) for name in names}


def _rotated(
    secrets: tuple[WebhookSecret, ...], event: WebhookSecretRotated, at_ms: int
) -> tuple[WebhookSecret, ...]:
    """The new one, the one before until its time is up, and those whose time is not up yet."""
    present, *former = secrets
    ending = (WebhookSecret(present.secret, at_ms + event.overlap_ms), *former)
    kept = (old for old in ending if (old.until_ms or 0) > at_ms and old.secret != event.secret)
    return (WebhookSecret(event.secret), *kept)[:MOST_SECRETS]


WEBHOOK: Final = Aggregate(
    name="webhook",
    commands=(
        *(CreateWebhook, UpdateWebhook, RotateWebhookSecret, PauseWebhook, ResumeWebhook),
        *(DeleteWebhook, SkipWebhookEvent, RequestRedelivery, TestWebhook),
    ),
    events=EVENTS,
    root_type=WebhookState,
    decide=decide,
    evolve=evolve,
    own_time=True,  # secrets end by it, and it is from when on events are delivered
)
