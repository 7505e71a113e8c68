"""Where the outbox's commands and dead letters go; each call returns when the broker has it."""

from typing import Final

from payments.reaction import Followup
from runtime.records import IncomingRecord, OutgoingRecord
from runtime.sending import SureProducer
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.partitioner import partition_for
from schemas.records import encode
from schemas.topics import Topics

AGGREGATE: Final = "payment"
STAGE: Final = "payments"


class Sender(SureProducer):
    """Made and used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, STAGE)
        self._topics = topics_of(settings)

    async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
        """A command that follows from an event."""
        record = record_of(followup, event_id, source, self._topics)
        await self.send(record.topic, record.key, record.value, record.headers)


def record_of(
    followup: Followup, event_id: str, source: IncomingRecord, topics: Topics
) -> OutgoingRecord:
    """The record of a command that follows from an event (``source``), in its conversation and trace."""
    also = (headers.ANSWER_TO,) if followup.answers else ()
    key = source.key or b""
    return OutgoingRecord(
        topics.commands(AGGREGATE),
        partition_for(key, topics.partitions),
        key,
        encode(followup.command),
        headers.following(event_id, source.headers, *also),
    )
