"""What is sent for an event, and its signatures, as Standard Webhooks 1.0 has it. Pure.

The invariant: the same event gives the same id and the same bytes in every delivery; what differs between
two attempts is the time and with it the signature.
"""

import re
from collections.abc import Container
from datetime import UTC, datetime
from typing import Final

import msgspec
from standardwebhooks import Webhook

from runtime.records import Headers, IncomingRecord
from schemas import headers, limits
from schemas.ids import is_id
from schemas.records import decode_event, encode
from schemas.webhook import WebhookSecret, former_message_id, message_id

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
PASSED_ON: Final = (headers.CORRELATION_ID, headers.TRACEPARENT)

MAX_VERSION: Final = 2**63 - 1

_is_plain: Final = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?").fullmatch
"""What can stand in an HTTP header without meaning something else."""


class Unreadable(Exception):
    """A record that is no event."""


class _Data(msgspec.Struct, frozen=True):
    aggregate: str
    id: str
    version: int
    event_id: str
    schema_version: int
    event: msgspec.Raw


class _Body(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: _Data


class Message(msgspec.Struct, frozen=True):
    """One event on its way. ``passed_on``: headers of the event that go with it. ``former_id``: its id in
    what an older release has delivered, and an operator has ordered since.
    """

    id: str
    type: str
    aggregate: str
    aggregate_id: str
    version: int
    body: bytes
    passed_on: dict[str, str]
    source: IncomingRecord
    former_id: str = ""

    def is_among(self, message_ids: Container[str]) -> bool:
        """True if one of these ids is its own."""
        return self.id in message_ids or self.former_id in message_ids


def known_as(message: Message, message_id: str) -> Message | None:
    """Return the message under the id that its receiver knows it by; None if it is another message's."""
    if not message.is_among((message_id,)):
        return None
    return msgspec.structs.replace(message, id=message_id)


def message_of(source: IncomingRecord, aggregate: str) -> Message:
    """The message that an event of an aggregate's history is. Raises Unreadable."""
    try:
        aggregate_id = (source.key or b"").decode()
        event = decode_event(source.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    if not is_id(aggregate_id):
        raise Unreadable("the record key is no id of an aggregate")
    if len(event.type) > limits.MAX_TYPE or not 0 < event.version <= MAX_VERSION:
        raise Unreadable("its type or its version is none that an event can have")
    kind = f"{aggregate}.{event.type}"
    # As it was written, of whatever version: who reads it knows the versions, this role does not have to.
    written = event.data or msgspec.Raw(b"{}")
    data = _Data(aggregate, aggregate_id, event.version, event.id, event.schema_version, written)
    return Message(
        message_id(source.topic, aggregate_id, event.version, event.id, source.occurred_at_ms),
        kind,
        aggregate,
        aggregate_id,
        event.version,
        encode(_Body(kind, _iso(event.occurred_at_ms), data)),
        _passed_on(source.headers),
        source,
        former_message_id(aggregate, aggregate_id, event.version),
    )


def _iso(at_ms: int) -> str:
    """A time as ISO 8601 has it, UTC; one that no calendar has, as the last that it has."""
    latest = 253_402_300_799_999  # the year 9999
    moment = datetime.fromtimestamp(min(max(at_ms, 0), latest) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _passed_on(marks: Headers) -> dict[str, str]:
    found = {}
    for name, value in marks:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if name in PASSED_ON and text is not None and _is_plain(text):
            found[name] = text
    return found


def headers_of(
    message: Message, secrets: tuple[WebhookSecret, ...], now: datetime
) -> dict[str, str]:
    """All headers of one attempt at ``now``, with a signature by each secret whose time is not up."""
    now_ms = now.timestamp() * 1000
    text = message.body.decode()
    signing = (each.secret for each in secrets if each.until_ms is None or each.until_ms > now_ms)
    signatures = (Webhook(secret).sign(message.id, now, text) for secret in signing)
    return {
        "content-type": "application/json",
        "user-agent": "orderflow-webhooks",
        ID_HEADER: message.id,
        TIMESTAMP_HEADER: str(int(now.timestamp())),
        SIGNATURE_HEADER: " ".join(signatures),
        **message.passed_on,
    }
