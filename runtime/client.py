"""Sends commands and waits for their outcomes; synchronous and asyncio.

A client that waits picks one partition of ``<prefix>.replies`` and asks for its outcomes there
(header ``reply-partition``), so it reads a sixteenth of what is asked, and nothing of what is only
sent. The processor writes the reply in the command's transaction: a reply that can be read is a
decision that stands.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from runtime import kafka
from runtime.records import Headers
from runtime.replies import ReplyReader
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from runtime.waiting import (
    ClientClosed,
    ClientForked,
    ReaderDied,
    RepliesMissed,
    token_of,
)
from schemas import headers
from schemas.decoding import decoder
from schemas.ids import end_key, reply_key
from schemas.parking import ParkedNotice
from schemas.records import (
    FIRST_VERSION,
    MAX_COMMAND_BYTES,
    CommandRecord,
    Outcome,
    decode_outcome,
    encode,
)
from schemas.saga import SagaEnd

logger = logging.getLogger(__name__)

ROOM_POLL_S: Final = 0.005
CROWDED: Final = kafka.MOST_BUFFERED // 2
"""Commands that wait to be sent: half of what a producer holds."""

POLL_S: Final = 0.1
DEFAULT_TIMEOUT_S: Final = 30.0

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
        self._process = os.getpid()
        self._topics = topics_of(settings)
        self._producer = Producer(kafka.producer(settings))
        self._undelivered: list[str] = []
        self._delivery_lock = threading.Lock()
        self._replies: ReplyReader | None = None
        self._replies_lock = threading.Lock()
        self._closed = threading.Event()
        self._broken: BaseException | None = None
        """Why deliveries cannot be confirmed any more: the thread that does it has ended by this."""
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

    @property
    def crowded(self) -> bool:
        """Return whether so much waits to be sent that a sender may have to wait for room: see `room`."""
        return len(self._producer) >= CROWDED

    def send(self, command: OutgoingCommand) -> None:
        """Queues a command and returns; its outcome stands on the outcomes topic. See ``flush``."""
        self._produce(command, command.value(), [], self._note_failure)

    def submit(self, command: OutgoingCommand) -> Future[Outcome]:
        """Send a command and return a future of this caller's own; cancel it to stop waiting.

        It gives the outcome, or raises NotDelivered, CommandParked or a NoReply, e.g. when the client is
        closed before. Raises NoReply, CommandTooLarge, KafkaException.
        """
        value = command.value()
        return self._submit(command, value, token_of(value), self.reply_reader())

    def execute(self, command: OutgoingCommand, timeout: float = DEFAULT_TIMEOUT_S) -> Outcome:
        """Sends a command and returns its outcome. Raises OutcomeTimeout, of which CommandParked is one,
        NotDelivered, NoReply and CommandTooLarge.
        """
        for left in _attempts(timeout):
            if self.crowded:
                time.sleep(min(ROOM_POLL_S, left))
                continue
            future = self.submit(command)
            try:
                return future.result(left)
            except RepliesMissed:
                continue
            except CommandParked:
                raise
            except TimeoutError:
                break
            finally:
                future.cancel()
        raise OutcomeTimeout(command.command_id, timeout)

    def submit_and_follow(
        self, command: OutgoingCommand
    ) -> tuple[Future[Outcome], Future[SagaEnd]]:
        """Send a command that starts a saga; return its outcome, and how the saga ended. Cancel what is not
        waited for any longer. The end is this command's only where the outcome is accepted.

        The saga processor remembers who waits in memory only: send the command again, with the same
        id, when nothing comes for a while.
        """
        value = command.value()
        token, replies = token_of(value), self.reply_reader()
        end = replies.waiters.expect(end_key(command.aggregate_id), token, _decode_end)
        try:
            return self._submit(command, value, token, replies), end
        except BaseException:
            end.cancel()
            raise

    def flush(self, timeout: float = 60.0) -> None:
        """Waits until the broker has everything sent so far. Raises NotDelivered otherwise."""
        self._require_own_process()
        left = self._producer.flush(timeout)
        with self._delivery_lock:
            failures, self._undelivered = self._undelivered, []
        if failures:
            raise NotDelivered(f"{len(failures)} commands were not delivered; first: {failures[0]}")
        if left:
            raise NotDelivered(f"{left} commands were not delivered within {timeout:g} s")

    def close(self) -> None:
        """Deliver what is queued and stop; futures without a reply end with ClientClosed.

        Raises NotDelivered. Calling it again does nothing; nor does calling it in a fork of the process.
        """
        if self._closed.is_set() or self._process != os.getpid():
            return
        try:
            self.flush()
        finally:
            self._closed.set()
            self._poller.join()
            with self._replies_lock:
                replies = self._replies
            if replies is not None:
                replies.close()
                replies.waiters.end(ClientClosed)

    def reply_reader(self) -> ReplyReader:
        """Return what reads this client's replies; made by the first call. Raises NoReply, KafkaException."""
        self._require_usable()
        with self._replies_lock:
            self._require_usable()  # closed meanwhile: nobody would close it
            if self._replies is None:
                self._replies = ReplyReader(self._settings, CommandParked)
            return self._replies

    def _submit(
        self, command: OutgoingCommand, value: bytes, token: bytes, replies: ReplyReader
    ) -> Future[Outcome]:
        key = reply_key(command.aggregate, command.aggregate_id, command.command_id)
        future = replies.waiters.expect(key, token, decode_outcome)

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                undelivered = NotDelivered(f"command {command.command_id}: {error.str()}")
                replies.waiters.fail_one(key, future, undelivered)

        asked = [
            (headers.REPLY_PARTITION, str(replies.partition).encode()),
            (headers.REPLY_TOKEN, token),
        ]
        try:
            self._produce(command, value, asked, on_delivery)
        except BaseException:
            future.cancel()
            raise
        return future

    def _produce(
        self,
        command: OutgoingCommand,
        value: bytes,
        extra: list[tuple[str, bytes]],
        on_delivery: Callable[[KafkaError | None, Message], None],
    ) -> None:
        marks = command.marks(*extra)
        while True:
            self._require_usable()
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
                time.sleep(ROOM_POLL_S)

    def _note_failure(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            with self._delivery_lock:
                self._undelivered.append(error.str())

    def _poll(self) -> None:
        try:
            while not self._closed.is_set():
                self._producer.poll(POLL_S)
        except BaseException as error:
            logger.exception("deliveries cannot be confirmed any more")
            self._broken = cause = error
            with self._replies_lock:
                replies = self._replies
            if replies is not None:
                replies.waiters.end(lambda: ReaderDied(cause))

    def _require_usable(self) -> None:
        self._require_own_process()
        if self._closed.is_set():
            raise ClientClosed
        if self._broken is not None:
            raise ReaderDied(self._broken)

    def _require_own_process(self) -> None:
        if self._process != os.getpid():
            raise ClientForked


class _Crowded(Protocol):
    @property
    def crowded(self) -> bool: ...


async def room(client: _Crowded) -> None:
    """Wait until a client's ``submit`` need not wait: it would stop the event loop that calls it."""
    while client.crowded:  # noqa: ASYNC110 - it is the library that makes room, and it tells nobody
        await asyncio.sleep(ROOM_POLL_S)


def _attempts(timeout: float) -> Iterator[float]:
    """How long is left, each time it is asked again; at least once, until the time is up."""
    deadline = time.monotonic() + timeout
    yield timeout
    while (left := deadline - time.monotonic()) > 0:
        yield left


async def _answered(future: Future[Outcome]) -> Outcome:
    try:
        return await asyncio.wrap_future(future)
    finally:
        future.cancel()


class AsyncCommandClient:
    """The same for asyncio: the waiting is done by the loop, the work by the client's own threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: CommandClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await asyncio.to_thread(CommandClient, self._settings)
        await asyncio.to_thread(self._client.reply_reader)
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
        for left in _attempts(timeout):
            try:
                async with asyncio.timeout(left):
                    await room(client)
                    return await _answered(client.submit(command))
            except RepliesMissed:
                continue
            except CommandParked:
                raise
            except TimeoutError:
                break
        raise OutcomeTimeout(command.command_id, timeout)

    def _started(self) -> CommandClient:
        if self._client is None:
            raise RuntimeError("use AsyncCommandClient as an async context manager")
        return self._client
