"""A producer whose records are waited for until the broker has them; for roles on an event loop.

The invariant: an ``await`` that returns is a record on the broker's disk.
"""

import asyncio
import logging
import threading
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from runtime import kafka
from runtime.records import Headers, IncomingRecord, dead_letter
from runtime.refusals import is_of_content
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.letters import Failure

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1
FLUSH_S: Final = 5.0
RETRY_S: Final = 1.0


class Unsendable(RuntimeError):
    """A record is too large, or not what a topic takes: sending it again would not help."""


class SureProducer:
    """Made and used on the event loop; deliveries are noticed by a thread of its own. ``stage``: the
    role, as dead letters and threads name it.
    """

    def __init__(self, settings: Settings, stage: str) -> None:
        self._stage = stage
        self._dead_letters = topics_of(settings).dead_letters
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Fails when the producer cannot go on: the process has to be made anew."""
        self._producer = Producer(kafka.producer(settings))
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name=f"{stage}-poll", daemon=True)
        self._poller.start()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, marks: Headers
    ) -> None:
        """Tries until the broker has it. Raises Unsendable for a record that no broker takes."""
        while True:
            try:
                return await self._send(topic, key, value, marks)
            except (BufferError, KafkaException) as fault:
                if is_of_content(fault):
                    raise Unsendable(f"a record for {topic} is refused: {fault}") from fault
                logger.warning("not sent, trying again: %s", fault)
                await asyncio.sleep(RETRY_S)

    async def dead_letter(self, source: IncomingRecord, code: str, cause: Exception) -> None:
        """A record as it came, with the cause and the place in headers."""
        failure = Failure(code, str(cause), self._stage, cause)
        letter = dead_letter(source, failure, self._dead_letters)
        await self.send(letter.topic, letter.key, letter.value, letter.headers)

    def close(self) -> None:
        """What is not delivered by then is sent again after the next start. Blocks."""
        self._producer.flush(FLUSH_S)
        self._closed.set()
        self._poller.join()

    async def _send(
        self, topic: str, key: bytes | None, value: bytes | None, marks: Headers
    ) -> None:
        delivered: asyncio.Future[None] = self._loop.create_future()

        def settle(error: KafkaError | None) -> None:
            if error is not None and error.fatal() and not self.broken.done():
                self.broken.set_exception(KafkaException(error))
            if delivered.done():  # the partition went in the meantime
                return
            if error is None:
                delivered.set_result(None)
            else:
                delivered.set_exception(KafkaException(error))

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            self._loop.call_soon_threadsafe(settle, error)

        self._producer.produce(topic, key=key, value=value, headers=marks, on_delivery=on_delivery)
        await delivered

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(POLL_S)
