"""Reads one partition of ``<prefix>.replies`` and completes the futures of those who wait.

Only runtime/client.py uses it. Invariant: nothing that is read ends the thread, and when it ends all the
same, all who wait are told, and so is everyone who asks later.
"""

import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime import kafka
from runtime.records import headers_of
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from runtime.waiting import UNTOLD, ReaderDied, RepliesMissed, Waiters
from schemas import headers
from schemas.decoding import DecodeError
from schemas.ids import is_end_key
from schemas.parking import ParkedNotice, decode_notice, put_off_by

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1
AT_ONCE: Final = 500
START_TIMEOUT_S: Final = 30.0
RECOVER_PAUSE_S: Final = 0.5

OnParked = Callable[[ParkedNotice], Exception]
"""The error of those who wait for a command that is parked."""


class ReplyReader:
    """Reads from the partition's end on. ``waiters``: who waits; ``partition``: where replies are to go."""

    def __init__(self, settings: Settings, on_parked: OnParked) -> None:
        topics = topics_of(settings)
        self.partition = random.randrange(topics.reply_partitions)
        self.waiters = Waiters()
        self._topic = topics.replies
        self._on_parked = on_parked
        self._closed = threading.Event()
        self._consumer = Consumer(kafka.reader(settings) | {"fetch.wait.max.ms": 50})
        self._read_from_the_end()
        self._thread = threading.Thread(target=self._run, name="command-replies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading. Who waits is not told: see ``Waiters.end``."""
        self._closed.set()
        self._thread.join()
        self._consumer.close()

    def _read_from_the_end(self) -> None:
        """The end is resolved here and not by the client in the background: a reply that is written right
        after this call must not be missed. Raises KafkaException.
        """
        at = TopicPartition(self._topic, self.partition)
        _, at.offset = kafka.watermarks(self._consumer, at, START_TIMEOUT_S)
        self._consumer.assign([at])

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                for message in kafka.what_came(self._consumer, AT_ONCE, POLL_S):
                    self._take(message)
        except BaseException as error:
            logger.exception("no replies can be read any more")
            cause = error  # the name of an except clause ends with it
            self.waiters.end(lambda: ReaderDied(cause))

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._deliver(message)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._recover()
        elif error.fatal():
            raise KafkaException(error)
        # Else it is the end of the partition, or the library goes on trying by itself.

    def _deliver(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if not isinstance(key, bytes) or not isinstance(value, bytes):
            return
        put_off = put_off_by(key)
        # Another caller's reply on the shared partition is skipped without decoding it.
        if not self.waiters.waits_for(put_off or key):
            return
        if put_off is not None:
            self._put_off(put_off, _token(message), value)
        elif is_end_key(key):
            self.waiters.complete_all(key, value)
        else:
            self.waiters.complete(key, _token(message), value)

    def _put_off(self, key: bytes, token: bytes | None, value: bytes) -> None:
        try:
            notice = decode_notice(value)
        except DecodeError as error:
            logger.warning("a notice about %r cannot be read: %s", key, error)
            return
        self.waiters.fail(key, token, self._on_parked(notice))

    def _recover(self) -> None:
        """The position is out of the log's range: retention has gone past it, or the topic is another one.

        An idle client gets here, too, for a transaction's marker may be the last before its position; then
        nobody waits. Else it is not known what was missed, so all who wait now are told.
        """
        while not self._closed.is_set():
            try:
                self._read_from_the_end()
                break
            except KafkaException as error:
                logger.warning("replies: cannot find the end of the partition yet: %s", error)
                self._closed.wait(RECOVER_PAUSE_S)
        if waiting := len(self.waiters):
            logger.warning("replies were deleted before they were read; %d callers waited", waiting)
        self.waiters.fail_all(RepliesMissed)


def _token(message: Message) -> bytes | None:
    """The token that came back; None from a processor that knows none."""
    token = dict(headers_of(message) or ()).get(headers.REPLY_TOKEN, UNTOLD)
    return token if isinstance(token, bytes) else UNTOLD
