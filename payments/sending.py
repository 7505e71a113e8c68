"""Where the outbox's commands and dead letters go; each call returns when the broker has it."""

from typing import Final

from payments.reaction import Followup
from runtime.records import IncomingRecord
from runtime.sending import SureProducer
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.records import encode

AGGREGATE: Final = "payment"
STAGE: Final = "payments"


class Sender(SureProducer):
    """Made and used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, STAGE)
        self._commands = topics_of(settings).commands(AGGREGATE)

    async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
        """A command that follows from an event, in its conversation and trace."""
        also = (headers.ANSWER_TO,) if followup.answers else ()
        marks = headers.following(event_id, source.headers, *also)
        await self.send(self._commands, source.key, encode(followup.command), marks)
