"""Callers who wait for replies: each has a future of its own. Thread-safe; knows no Kafka.

A reply is found by the key of its record and, under a key, by its token: what the caller sent with the
command (header ``reply-token``) and the processor sent back. The token is a digest of the command's bytes,
so a repetition may be answered by an earlier reply, and another command under the same id may not.
Invariant: what one caller does (time-out, cancel) changes no other caller's future.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Final, TypeVar

from schemas.decoding import DecodeError

T = TypeVar("T")
Decode = Callable[[bytes], T]

_TOKEN_BYTES: Final = 8
UNTOLD: Final = None
"""The token of a reply by a processor that knows no tokens: an older release."""


class NoReply(RuntimeError):
    """The caller waits no longer, and there is no answer. The command may be decided all the same: send it
    again with the same id to get its outcome.
    """


class ClientClosed(NoReply):
    """The client was closed. A command that was sent before may still be decided."""

    def __init__(self) -> None:
        super().__init__(
            "the client is closed. A command that was sent before may still be decided: send it again with "
            "the same id, by a new client, to get its outcome."
        )


class ClientForked(NoReply):
    """The process is a fork: its client's threads and connections stayed with the parent."""

    def __init__(self) -> None:
        super().__init__(
            "this client was made before the process was forked and works only in its parent. Make a client "
            "of its own in each process."
        )


class RepliesMissed(NoReply):
    """Replies were deleted by retention before this client had read them, e.g. while it was suspended."""

    def __init__(self) -> None:
        super().__init__(
            "replies were deleted before this client had read them: it was suspended for longer than they "
            "are kept. Send the command again with the same id to get its outcome."
        )


class ReaderDied(NoReply):
    """The thread that reads replies has ended by an error; this client can wait for nothing any more."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"this client can read no replies any more: {type(cause).__name__}: {cause}. Make a new client, "
            "and send the command again with the same id to get its outcome."
        )


class UnreadableReply(NoReply):
    """A reply came that this release cannot read."""

    def __init__(self, key: bytes, cause: Exception) -> None:
        super().__init__(
            f"the reply {key.decode(errors='replace')} cannot be read: {cause}. The command is decided. If "
            "the processors are of a newer release than this client, upgrade the client."
        )


class ReplyFuture(Future[T]):
    """A future that waits for nothing in a fork of the process that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    def result(self, timeout: float | None = None) -> T:
        """As Future's. Raises ClientForked in a fork, unless it is done."""
        self._require_own_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As Future's. Raises ClientForked in a fork, unless it is done."""
        self._require_own_process()
        return super().exception(timeout)

    def _require_own_process(self) -> None:
        if self._process != os.getpid() and not self.done():
            raise ClientForked


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    token: bytes
    future: ReplyFuture[Any]
    decode: Decode[Any]


class Waiters:
    """Everyone who waits by one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[bytes, list[_Waiter]] = {}
        self._ended: Callable[[], NoReply] | None = None

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def expect(self, key: bytes, token: bytes, decode: Decode[T]) -> Future[T]:
        """Return a new future for a reply; cancel it to stop waiting. Raises NoReply after ``end``."""
        future = ReplyFuture[T]()
        waiter = _Waiter(token, future, decode)
        with self._lock:
            if self._ended is not None:
                raise self._ended()
            self._waiting.setdefault(key, []).append(waiter)
        future.add_done_callback(partial(self._left, key))
        return future

    def complete(self, key: bytes, token: bytes | None, value: bytes) -> None:
        """Give a reply to those who wait for it under this token."""
        for waiter in self._take(key, token):
            try:
                result = waiter.decode(value)
            except DecodeError as error:
                _fail(waiter, UnreadableReply(key, error))
            else:
                if waiter.future.set_running_or_notify_cancel():
                    waiter.future.set_result(result)

    def complete_all(self, key: bytes, value: bytes) -> None:
        """Give a reply to all who wait under the key, whatever they sent."""
        with self._lock:
            tokens = {waiter.token for waiter in self._waiting.get(key, ())}
        for token in tokens:
            self.complete(key, token, value)

    def fail(self, key: bytes, token: bytes | None, error: Exception) -> None:
        """Let those who wait under this token end with an error."""
        for waiter in self._take(key, token):
            _fail(waiter, error)

    def fail_one(self, key: bytes, future: Future[Any], error: Exception) -> None:
        """Let one caller end with an error, if there was no answer before."""
        waiter = self._remove(key, future)
        if waiter is not None:
            _fail(waiter, error)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Let everyone end with an error, each with one of their own."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for waiter in _flat(waiting):
            _fail(waiter, error())

    def end(self, error: Callable[[], NoReply]) -> None:
        """Let everyone end with an error; from now on nobody can wait. The first call counts."""
        with self._lock:
            if self._ended is None:
                self._ended = error
        self.fail_all(error)

    def waits_for(self, key: bytes) -> bool:
        """Return True if anyone waits under this key."""
        with self._lock:
            return key in self._waiting

    def _take(self, key: bytes, token: bytes | None) -> list[_Waiter]:
        with self._lock:
            found = self._waiting.pop(key, [])
            if token is UNTOLD and found:
                # Replies come in the order of the commands, so this one is for who sent first.
                token = found[0].token
            left = [waiter for waiter in found if waiter.token != token]
            if left:
                self._waiting[key] = left
        return [waiter for waiter in found if waiter.token == token]

    def _left(self, key: bytes, future: Future[Any]) -> None:
        """Forget a caller who has cancelled; one that was answered is not there any more."""
        if future.cancelled() and self._remove(key, future) is not None:
            future.set_running_or_notify_cancel()  # tells `wait` and `as_completed`, which `cancel` does not

    def _remove(self, key: bytes, future: Future[Any]) -> _Waiter | None:
        """Take one waiter out; None: another thread has."""
        with self._lock:
            found = self._waiting.get(key, [])
            left = [waiter for waiter in found if waiter.future is not future]
            if left:
                self._waiting[key] = left
            else:
                self._waiting.pop(key, None)
        return next((waiter for waiter in found if waiter.future is future), None)


def token_of(value: bytes) -> bytes:
    """Return the token of a command's bytes: equal commands have the same one."""
    return blake2b(value, digest_size=_TOKEN_BYTES).hexdigest().encode()


def _fail(waiter: _Waiter, error: Exception) -> None:
    if waiter.future.set_running_or_notify_cancel():
        waiter.future.set_exception(error)


def _flat(waiting: dict[bytes, list[_Waiter]]) -> Iterator[_Waiter]:
    for waiters in waiting.values():
        yield from waiters
