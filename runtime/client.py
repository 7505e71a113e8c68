"""Sends commands and waits for their outcomes; synchronous and asyncio.

A client that waits picks one partition of ``<prefix>.replies`` and asks for its outcomes there
(header ``reply-partition``), so it reads a sixteenth of what is asked, and nothing of what is only
sent. The processor writes the reply in the command's transaction: a reply that can be read is a
decision that stands.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from runtime import kafka
from runtime.records import Headers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.decoding import decoder
from schemas.ids import end_key, reply_key
from schemas.parking import ParkedNotice, decode_notice, put_off_by
from schemas.records import (
    FIRST_VERSION,
    MAX_COMMAND_BYTES,
    CommandRecord,
    Outcome,
    decode_outcome,
    encode,
)
from schemas.saga import SagaEnd

POLL_S: Final = 0.1
AT_ONCE: Final = 500
START_TIMEOUT_S: Final = 30.0
DEFAULT_TIMEOUT_S: Final = 30.0

T = TypeVar("T")
Decode = Callable[[bytes], T]
_decode_end: Final = decoder(SagaEnd)


class OutcomeTimeout(TimeoutError):
    """No outcome in time. The command may still be decided: ask again with the same command id."""

    def __init__(self, command_id: str, timeout: float) -> None:
        super().__init__(
            f"no outcome of command {command_id} within {timeout:g} s; it may still be decided. Send it "
            "again with the same id to get its outcome without carrying it out twice, and see that a "
            "processor is running (`orderflow doctor`)."
        )
        self.command_id = command_id


class CommandParked(OutcomeTimeout):
    """There is no outcome yet, and no waiting brings one: the command, or one before it of its aggregate,
    could not be judged and waits for an operator (`orderflow dead-letters list`).

    Send it again with the same id, later, to get its outcome.
    """

    def __init__(self, notice: ParkedNotice) -> None:
        TimeoutError.__init__(
            self,
            f"no outcome of command {notice.command_id} yet: {notice.message}. See `orderflow dead-letters "
            "list`; when it is settled, send the command again with the same id to get its outcome.",
        )
        self.command_id = notice.command_id
        self.notice = notice


class NotDelivered(RuntimeError):
    """Commands that did not reach the broker; the message has the first cause. Send them again: same ids."""


class CommandTooLarge(ValueError):
    """The command's JSON exceeds what any processor accepts."""


@dataclass(frozen=True, slots=True)
class OutgoingCommand:
    """A command ready for its topic. ``data`` is the JSON of the command's own fields.

    ``occurred_at_ms``: when it happened, epoch milliseconds UTC, if that is not when it is sent.
    ``traceparent``: W3C Trace Context, which all that follows from the command carries on.
    """

    aggregate: str
    aggregate_id: str
    type: str
    data: bytes
    command_id: str
    schema_version: int = FIRST_VERSION
    expected_version: int | None = None
    correlation_id: str | None = None
    occurred_at_ms: int | None = None
    traceparent: str | None = None

    def marks(self, *more: tuple[str, bytes]) -> Headers:
        """The record's headers."""
        correlation = self.correlation_id or self.command_id
        marks: Headers = [(headers.CORRELATION_ID, correlation.encode()), *more]
        if self.occurred_at_ms is not None:
            marks.append((headers.OCCURRED_AT_MS, str(self.occurred_at_ms).encode()))
        if self.traceparent is not None:
            marks.append((headers.TRACEPARENT, self.traceparent.encode()))
        return marks

    def value(self) -> bytes:
        """The record's value. Raises CommandTooLarge."""
        value = encode(
            CommandRecord(
                type=self.type,
                command_id=self.command_id,
                data=msgspec.Raw(self.data),
                schema_version=self.schema_version,
                expected_version=self.expected_version,
            )
        )
        if len(value) > MAX_COMMAND_BYTES:
            raise CommandTooLarge(
                f"command {self.command_id} has {len(value)} bytes; at most {MAX_COMMAND_BYTES} are "
                "accepted. Split it."
            )
        return value


class CommandClient:
    """Thread-safe; one a process is enough. Use as a context manager, or call ``close()``.

    ``send`` forgets, ``execute`` waits, ``submit`` gives a future. Full buffers make the sender
    wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = topics_of(settings)
        self._producer = Producer(kafka.producer(settings))
        self._undelivered: list[str] = []
        self._delivery_lock = threading.Lock()
        self._replies: _Replies | None = None
        self._replies_lock = threading.Lock()
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="command-client-poll", daemon=True)
        self._poller.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, command: OutgoingCommand) -> None:
        """Queues a command and returns; its outcome stands on the outcomes topic. See ``flush``."""
        self._produce(command, command.value(), [], self._note_failure)

    def submit(self, command: OutgoingCommand) -> Future[Outcome]:
        """Sends a command; the future gives its outcome, or raises NotDelivered or CommandParked."""
        value = command.value()
        replies = self._reply_reader()
        key = _reply_key(command)
        future = replies.expect(key, decode_outcome)

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                replies.fail(key, NotDelivered(f"command {command.command_id}: {error.str()}"))

        header = (headers.REPLY_PARTITION, str(replies.partition).encode())
        try:
            self._produce(command, value, [header], on_delivery)
        except KafkaException:
            replies.forget(key)
            raise
        return future

    def execute(self, command: OutgoingCommand, timeout: float = DEFAULT_TIMEOUT_S) -> Outcome:
        """Sends a command and returns its outcome. Raises OutcomeTimeout, of which CommandParked is one,
        NotDelivered and CommandTooLarge.
        """
        future = self.submit(command)
        try:
            return future.result(timeout)
        except CommandParked:
            raise
        except TimeoutError:
            self.forget(command)
            raise OutcomeTimeout(command.command_id, timeout) from None

    def forget(self, command: OutgoingCommand) -> None:
        """Stops waiting for a command's outcome."""
        if self._replies is not None:
            self._replies.forget(_reply_key(command))

    def submit_and_follow(
        self, command: OutgoingCommand
    ) -> tuple[Future[Outcome], Future[SagaEnd]]:
        """Sends a command that starts a saga; gives its outcome, and how the saga ended.

        The saga processor remembers who waits in memory only: send the command again, with the same
        id, when nothing comes for a while. See ``unfollow``.
        """
        end = self._reply_reader().expect(end_key(command.aggregate_id), _decode_end)
        return self.submit(command), end

    def unfollow(self, saga_id: str) -> None:
        """Stops waiting for a saga's end."""
        if self._replies is not None:
            self._replies.forget(end_key(saga_id))

    def flush(self, timeout: float = 60.0) -> None:
        """Waits until the broker has everything sent so far. Raises NotDelivered otherwise."""
        left = self._producer.flush(timeout)
        with self._delivery_lock:
            failures, self._undelivered = self._undelivered, []
        if failures:
            raise NotDelivered(f"{len(failures)} commands were not delivered; first: {failures[0]}")
        if left:
            raise NotDelivered(f"{left} commands were not delivered within {timeout:g} s")

    def close(self) -> None:
        """Delivers what is queued and stops. Raises NotDelivered; calling it again does nothing."""
        if self._closed.is_set():
            return
        try:
            self.flush()
        finally:
            self._closed.set()
            self._poller.join()
            if self._replies is not None:
                self._replies.close()

    def _produce(
        self,
        command: OutgoingCommand,
        value: bytes,
        extra: list[tuple[str, bytes]],
        on_delivery: Callable[[KafkaError | None, Message], None],
    ) -> None:
        marks = command.marks(*extra)
        while True:
            try:
                self._producer.produce(
                    self._topics.commands(command.aggregate),
                    key=command.aggregate_id.encode(),
                    value=value,
                    headers=marks,
                    on_delivery=on_delivery,
                )
                return
            except BufferError:  # full: the poller makes room as deliveries are confirmed
                time.sleep(0.005)

    def _note_failure(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            with self._delivery_lock:
                self._undelivered.append(error.str())

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(POLL_S)

    def _reply_reader(self) -> "_Replies":
        with self._replies_lock:
            if self._replies is None:
                self._replies = _Replies(self._settings)
            return self._replies


class _Replies:
    """Reads one partition of the replies topic from its end on and completes the futures that wait."""

    def __init__(self, settings: Settings) -> None:
        topics = topics_of(settings)
        self.partition = random.randrange(topics.reply_partitions)
        self._waiting: dict[bytes, tuple[Future[Any], Decode[Any]]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._consumer = Consumer(kafka.reader(settings) | {"fetch.wait.max.ms": 50})
        at = TopicPartition(topics.replies, self.partition)
        # The end is resolved here and not by the client in the background: a reply that is written
        # right after this call must not be missed.
        _, at.offset = kafka.watermarks(self._consumer, at, START_TIMEOUT_S)
        self._consumer.assign([at])
        self._thread = threading.Thread(target=self._read, name="command-replies", daemon=True)
        self._thread.start()

    def expect(self, key: bytes, decode: Decode[T]) -> Future[T]:
        """The future of a reply; who asks for the same meanwhile shares it."""
        with self._lock:
            found = self._waiting.get(key)
            if found is None or found[0].cancelled():  # who cancelled it need not have said so
                found = self._waiting[key] = (Future(), decode)
            return found[0]

    def forget(self, key: bytes) -> None:
        with self._lock:
            future, _ = self._waiting.pop(key, (None, None))
        if future is not None:
            future.cancel()

    def fail(self, key: bytes, error: Exception) -> None:
        with self._lock:
            future, _ = self._waiting.pop(key, (None, None))
        if future is not None and future.set_running_or_notify_cancel():
            future.set_exception(error)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._closed.is_set():
            for message in kafka.what_came(self._consumer, AT_ONCE, POLL_S):
                error = message.error()
                if error is None:
                    self._complete(message)
                elif error.code() != KafkaError._PARTITION_EOF and error.fatal():
                    self._fail_all(KafkaException(error))

    def _complete(self, message: Message) -> None:
        key, value = message.key(), message.value()
        if key is None or value is None:
            return
        put_off = put_off_by(key)
        if put_off is not None:
            # Decoded whosever it is: there are few.
            self.fail(put_off, CommandParked(decode_notice(value)))
            return
        with self._lock:
            found = self._waiting.pop(key, None)
        # Somebody else's reply on the shared partition is skipped without decoding it.
        if found is not None:
            future, decode = found
            if future.set_running_or_notify_cancel():
                future.set_result(decode(value))

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _reply_key(command: OutgoingCommand) -> bytes:
    return reply_key(command.aggregate, command.aggregate_id, command.command_id)


class AsyncCommandClient:
    """The same for asyncio: the waiting is done by the loop, the work by the client's own threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: CommandClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await asyncio.to_thread(CommandClient, self._settings)
        await asyncio.to_thread(self._client._reply_reader)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._started().close)

    async def send(self, command: OutgoingCommand) -> None:
        """As CommandClient.send; a full buffer makes this task wait, not the loop."""
        await asyncio.to_thread(self._started().send, command)

    async def flush(self, timeout: float = 60.0) -> None:
        """As CommandClient.flush."""
        await asyncio.to_thread(self._started().flush, timeout)

    @property
    def threaded(self) -> CommandClient:
        """The client that does the work."""
        return self._started()

    async def execute(
        self, command: OutgoingCommand, timeout: float = DEFAULT_TIMEOUT_S
    ) -> Outcome:
        """As CommandClient.execute."""
        client = self._started()
        future = client.submit(command)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except CommandParked:
            raise
        except TimeoutError:
            client.forget(command)
            raise OutcomeTimeout(command.command_id, timeout) from None

    def _started(self) -> CommandClient:
        if self._client is None:
            raise RuntimeError("use AsyncCommandClient as an async context manager")
        return self._client
