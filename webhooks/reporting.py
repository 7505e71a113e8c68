"""Where it is written down what became of deliveries, and where a webhook is paused; each call returns
when the broker has it.
"""

import time
import uuid
from typing import Final

import msgspec

from runtime.sending import SureProducer
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.records import CommandRecord, encode
from schemas.topics import WEBHOOK
from schemas.webhook import Delivery, DeliveryResult
from webhooks.message import Message
from webhooks.policy import Answer, Verdict, judge

STAGE: Final = "webhooks"
MOST_REASON: Final = 200
"""As the command's model has it."""


class Reporter(SureProducer):
    """Made and used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, STAGE)
        topics = topics_of(settings)
        self._deliveries = topics.webhook_deliveries
        self._commands = topics.commands(WEBHOOK)

    async def attempt(
        self, webhook_id: str, message: Message, attempt: int, answer: Answer, *, by_hand: bool
    ) -> None:
        """One attempt and what came of it."""
        good = judge(answer) is Verdict.DELIVERED
        result = DeliveryResult.DELIVERED if good else DeliveryResult.FAILED
        line = _line(webhook_id, message, result, attempt, answer.error, by_hand=by_hand)
        await self._log(
            msgspec.structs.replace(line, status=answer.status, latency_ms=answer.latency_ms)
        )

    async def passed_by(
        self,
        webhook_id: str,
        message: Message,
        result: DeliveryResult,
        why: str,
        *,
        by_hand: bool = False,
    ) -> None:
        """A delivery that was not attempted."""
        await self._log(_line(webhook_id, message, result, 0, why, by_hand=by_hand))

    async def pause(self, webhook_id: str, reason: str, version: int) -> None:
        """Has the webhook paused, unless it is another by now than that of this version."""
        command = CommandRecord(
            type="PauseWebhook",
            command_id=f"webhooks-{uuid.uuid4().hex}",
            data=msgspec.Raw(encode({"reason": reason[:MOST_REASON]})),
            expected_version=version,
        )
        marks: headers.Marks = [(headers.CORRELATION_ID, command.command_id.encode())]
        await self.send(self._commands, webhook_id.encode(), encode(command), marks)

    async def _log(self, line: Delivery) -> None:
        await self.send(self._deliveries, line.webhook.encode(), encode(line), [])


def _line(
    webhook_id: str,
    message: Message,
    result: DeliveryResult,
    attempt: int,
    error: str | None,
    *,
    by_hand: bool,
) -> Delivery:
    source = message.source
    return Delivery(
        webhook=webhook_id,
        message_id=message.id,
        type=message.type,
        aggregate=message.aggregate,
        aggregate_id=message.aggregate_id,
        version=message.version,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        result=result,
        attempt=attempt,
        at_ms=time.time_ns() // 1_000_000,
        error=error,
        by_hand=by_hand,
    )
