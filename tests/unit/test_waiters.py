"""Callers who wait for one reply: what one of them meets, no other notices."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait

import pytest

from runtime.waiting import ClientClosed, Waiters

KEY, TOKEN = b"k", b"t"


def value(data: bytes) -> bytes:
    return data


def test_a_command_that_is_not_delivered_fails_its_caller_alone() -> None:
    waiters = Waiters()
    first, second = (waiters.expect(KEY, TOKEN, value) for _ in range(2))
    waiters.fail_one(KEY, second, ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        second.result(0)
    assert not first.done()
    waiters.complete(KEY, TOKEN, b"answer")
    assert first.result(0) == b"answer"
    waiters.fail_one(KEY, first, ConnectionError("too late"))
    assert first.result(0) == b"answer"


def test_who_waits_for_several_notices_one_that_is_cancelled() -> None:
    waiters = Waiters()
    cancelled, other = (waiters.expect(KEY, TOKEN, value) for _ in range(2))
    assert cancelled.cancel()
    assert wait([cancelled, other], 5, FIRST_COMPLETED).done == {cancelled}
    assert next(as_completed([cancelled, other], 5)) is cancelled
    with pytest.raises(CancelledError):
        cancelled.result(0)
    assert len(waiters) == 1
    waiters.end(ClientClosed)
    assert wait([cancelled, other], 5).not_done == set()


def test_a_caller_that_cancels_what_is_answered_changes_nothing() -> None:
    waiters = Waiters()
    future = waiters.expect(KEY, TOKEN, value)
    waiters.complete(KEY, TOKEN, b"answer")
    assert not future.cancel()
    assert future.result(0) == b"answer"
