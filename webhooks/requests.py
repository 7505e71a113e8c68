"""What operators ask for by hand: an event once more, and tests. Read from the webhooks' own history, so a
request survives every crash: its offset is committed when it has ended.

A delivery by hand is out of order: it waits for nothing and nothing waits for it. It goes to webhooks
that are paused, too, which is how one sees whether an endpoint is well again. A few attempts, then it has
failed; the log says so, and asking again is up to who asked.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Final

import msgspec
from confluent_kafka import KafkaException

from runtime import kafka
from runtime.follower import Follower
from runtime.lanes import Lanes, Place
from runtime.records import IncomingRecord
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import EventRecord, decode_event
from schemas.topics import WEBHOOK
from schemas.upcasting import Reader
from schemas.webhook import (
    DeliveryResult,
    WebhookRedeliveryRequested,
    WebhookState,
    WebhookStatus,
    WebhookTestRequested,
)
from webhooks.course import Tools
from webhooks.message import Message, Unreadable, known_as, message_of
from webhooks.policy import ATTEMPTS_BY_HAND, Answer, Verdict, judge
from webhooks.posting import post
from webhooks.registry import Registry, Webhook
from webhooks.reporting import STAGE

logger = logging.getLogger(__name__)

EXPIRE_AFTER_MS: Final = 24 * 3_600_000
"""What was asked for longer ago is not done any more: nobody waits for it, and a group that lost its
offsets begins at the beginning of the history.
"""
KNOWN_WITHIN_S: Final = 60.0
"""A request is committed with the state that it has led to; so long the state may take to be read."""

MOST_HELD: Final = 1_000
HELD_BYTES: Final = 16 * 1024 * 1024

_redelivery: Final = Reader(WebhookRedeliveryRequested)


class _Request(msgspec.Struct, frozen=True):
    """``known_until``: when its webhook has to be known, on the loop's clock."""

    webhook_id: str
    event: EventRecord
    source: IncomingRecord
    known_until: float


def group_id(settings: Settings) -> str:
    """Consumer group of the requests by hand."""
    return f"{settings.topic_prefix}.{STAGE}"


class Requests(Lanes[_Request]):
    """A lane a webhook."""

    def __init__(self, registry: Registry, tools: Tools) -> None:
        super().__init__(self._carry_out)
        self._registry = registry
        self._tools = tools
        self._topics = topics_of(tools.settings)

    def follower(self) -> Follower:
        """Reads the requests."""
        settings = self._tools.settings
        return Follower(
            "webhooks-requests",
            kafka.repeating_consumer(settings, group_id(settings)),
            [self._topics.history(WEBHOOK)],
            self,
            full=lambda _: self.held >= MOST_HELD or self.held_bytes >= HELD_BYTES,
        )

    def take(self, source: IncomingRecord) -> None:
        """The next event of the webhooks' history."""
        place = source.topic, source.partition
        if not self.owns(place):
            return
        try:
            event = decode_event(source.value or b"")
            webhook_id = (source.key or b"").decode()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.error("%s-%d at %d: %s", source.topic, source.partition, source.offset, error)
            self.pass_by(place, source.offset)
            return
        if event.type in (WebhookRedeliveryRequested.__name__, WebhookTestRequested.__name__):
            now = asyncio.get_running_loop().time()
            request = _Request(webhook_id, event, source, now + KNOWN_WITHIN_S)
            self.queue(place, source.offset, source.key or b"", request, size=source.size)
        else:
            self.pass_by(place, source.offset)

    async def _carry_out(self, request: _Request, _: asyncio.Event) -> None:
        try:
            await self._deliver_or_expire(request)
        except Unreadable as error:
            logger.error("webhook %s: %s", request.webhook_id, error)
            await self._tools.reporter.dead_letter(request.source, "not_found", error)
        except Exception as bug:  # of ours: it must hold up nobody else's request
            logger.exception("bug while delivering to %s by hand", request.webhook_id)
            await self._tools.reporter.dead_letter(request.source, "internal_error", bug)

    async def _deliver_or_expire(self, request: _Request) -> None:
        """Raises Unreadable for what no webhook has asked for."""
        reporter = self._tools.reporter
        message = await self._message(request)
        webhook = await self._webhook(request)
        old = request.source.occurred_at_ms < time.time() * 1000 - EXPIRE_AFTER_MS
        if old or webhook.state.status is WebhookStatus.DELETED:
            why = "asked for too long ago" if old else "the webhook is deleted"
            expired = DeliveryResult.EXPIRED
            await reporter.passed_by(webhook.id, message, expired, why, by_hand=True)
            return
        await self._deliver(webhook.id, message, webhook.state)

    async def _webhook(self, request: _Request) -> Webhook:
        """Return the webhook as the request has left it. Both were committed together, so one that is not
        there after a while is not there at all. Raises Unreadable.
        """
        try:
            async with asyncio.timeout_at(request.known_until):
                return await self._registry.at_least(request.webhook_id, request.event.version)
        except TimeoutError:
            version = request.event.version
            raise Unreadable(f"no webhook {request.webhook_id} has version {version}") from None

    async def _deliver(self, webhook_id: str, message: Message, state: WebhookState) -> None:
        tools = self._tools
        for attempt in range(1, ATTEMPTS_BY_HAND + 1):
            answer: Answer = await post(tools.poster, state, message)
            await tools.reporter.attempt(webhook_id, message, attempt, answer, by_hand=True)
            if judge(answer) is not Verdict.AGAIN or attempt == ATTEMPTS_BY_HAND:
                return
            now = datetime.now(UTC)
            await asyncio.sleep(tools.policy.pause_s(attempt, tools.chance, answer, now))

    async def _message(self, request: _Request) -> Message:
        """What is to be delivered. Raises Unreadable."""
        if request.event.type == WebhookTestRequested.__name__:
            return message_of(request.source, WEBHOOK)
        try:
            wanted = _redelivery.read(request.event.data, request.event.schema_version)
        except msgspec.MsgspecError as error:
            raise Unreadable(f"not a request for a redelivery: {error}") from error
        topic = self._topics.history(wanted.aggregate)
        found = await self._record_at((topic, wanted.partition), wanted.offset)
        event = None if found is None else message_of(found, wanted.aggregate)
        message = None if event is None else known_as(event, wanted.message_id)
        if message is None:
            raise Unreadable(
                f"{wanted.message_id} is not at {topic}-{wanted.partition}, {wanted.offset}"
            )
        return message

    async def _record_at(self, place: Place, offset: int) -> IncomingRecord | None:
        try:
            return await self._tools.behind.record_at(place, offset)
        except KafkaException as error:  # an offset or a partition that is not there
            logger.warning("event at %s, %d not found: %s", place, offset, error)
            return None
