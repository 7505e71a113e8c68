"""Who subscribes to what: the newest state of every webhook, read from the compacted topic and followed.

Nothing is told before the topic was read to its end once: a state that was overtaken long ago must not
be acted on. Every process of the role has all of them; who delivers what is decided by the consumer groups.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from runtime import kafka, watchdog
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.ids import MAX_ID_LENGTH, is_id
from schemas.topics import WEBHOOK
from schemas.upcasting import StateReader
from schemas.webhook import WebhookState

logger = logging.getLogger(__name__)

REGISTRY: Final = "webhooks-registry"
"""Name of its thread, and of its loop for the watchdog."""

AT_ONCE: Final = 500
POLL_S: Final = 0.1
_SHOWN_CHARACTERS: Final = 500

_states: Final = StateReader(WebhookState)


class Webhook(NamedTuple):
    """A webhook as it stands at a version."""

    id: str
    version: int
    state: WebhookState


def group_id(settings: Settings, webhook_id: str) -> str:
    """Group of one webhook, without members: where its deliveries stand."""
    return f"{settings.topic_prefix}.webhook-position.{webhook_id}"


def former_group_id(settings: Settings, webhook_id: str) -> str:
    """Group that a webhook was a member of until all webhooks read together. The broker counts the offsets
    of a group that has had members from the last one's leaving on, whatever is committed later.
    """
    return f"{settings.topic_prefix}.webhook.{webhook_id}"


def webhook_in(key: bytes | None, value: bytes | None) -> Webhook | None:
    """A record of the events topic; None for one that says nothing of a webhook, which is logged: what was
    known before it stands. Never raises.
    """
    try:
        identity = (key or b"").decode()
        if not is_id(identity):
            raise msgspec.ValidationError("its key is no id")
        return Webhook(identity, *_states.read(value or b""))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown, reason = (key or b"")[:MAX_ID_LENGTH], str(error)[:_SHOWN_CHARACTERS]
        logger.error("a record of webhook %r cannot be read: %s", shown, reason)
        return None


class Registry:
    """On one event loop; the consumer has a thread of its own. ``on_change`` gets the newest states, then
    every one that follows.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Webhook], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._found: dict[str, Webhook] = {}
        self._unread = set(range(settings.partitions))
        """Partitions that were not read to their end yet."""
        self._changed = asyncio.Condition()

    async def at_least(self, webhook_id: str, version: int) -> Webhook:
        """The webhook at this version or a later one, as soon as it is known."""

        def known() -> bool:
            found = self._found.get(webhook_id)
            return found is not None and found.version >= version

        async with self._changed:
            await self._changed.wait_for(known)
            return self._found[webhook_id]

    async def run(self, stopping: asyncio.Event) -> None:
        """Until stopped. Raises KafkaException."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, REGISTRY)
        consumer = await loop.run_in_executor(thread, self._open)
        try:
            with watchdog.watched(REGISTRY):
                while not stopping.is_set():
                    watchdog.beat(REGISTRY)
                    poll = loop.run_in_executor(thread, kafka.what_came, consumer, AT_ONCE, POLL_S)
                    # Shielded: what goes on in the thread while nobody waits would race with the closing.
                    await self._take(await asyncio.shield(poll))
        finally:
            await asyncio.shield(loop.run_in_executor(thread, consumer.close))
            thread.shutdown()

    def _open(self) -> Consumer:
        consumer = kafka.new_reader(self._settings)
        topic = topics_of(self._settings).events(WEBHOOK)
        consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for partition in range(self._settings.partitions)
            ]
        )
        return consumer

    async def _take(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                self._has_ended(message.partition() or 0)
            elif kafka.is_record(message):
                self._learn(message)
        if messages:
            async with self._changed:
                self._changed.notify_all()

    def _has_ended(self, partition: int) -> None:
        if partition in self._unread:
            self._unread.discard(partition)
            if not self._unread:
                for webhook in self._found.values():
                    self._on_change(webhook)

    def _learn(self, message: Message) -> None:
        webhook = webhook_in(message.key(), message.value())
        if webhook is None:
            return
        self._found[webhook.id] = webhook
        if not self._unread:
            self._on_change(webhook)
