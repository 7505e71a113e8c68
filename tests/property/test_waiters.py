"""Callers who wait for replies: whatever order things happen in, each gets its own answer or its own end."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.waiting import (
    UNTOLD,
    ClientClosed,
    ClientForked,
    RepliesMissed,
    UnreadableReply,
    Waiters,
    token_of,
)
from schemas.decoding import DecodeError

KEYS = st.sampled_from([b"user/ada/1", b"user/ada/2", b"order/o-1/1"])
PAYLOADS = st.sampled_from([b'{"a":1}', b'{"a":2}', b'{"a":3}'])


def decode(value: bytes) -> bytes:
    if value.startswith(b"!"):
        raise DecodeError("not of this release")
    return value


class AnyOrder(RuleBasedStateMachine):
    """Submit, reply, time-out, parked, missed and close in any order, against a plain list of callers."""

    def __init__(self) -> None:
        super().__init__()
        self.waiters = Waiters()
        self.open: list[tuple[bytes, bytes, Future[bytes]]] = []
        self.ended = False

    def done(self, chosen: list[tuple[bytes, bytes, Future[bytes]]]) -> Iterator[Future[bytes]]:
        for each in chosen:
            self.open.remove(each)
            yield each[2]

    @rule(key=KEYS, payload=PAYLOADS)
    def submit(self, key: bytes, payload: bytes) -> None:
        if self.ended:
            with pytest.raises(ClientClosed):
                self.waiters.expect(key, token_of(payload), decode)
        else:
            future = self.waiters.expect(key, token_of(payload), decode)
            self.open.append((key, payload, future))

    @rule(key=KEYS, payload=PAYLOADS)
    def reply(self, key: bytes, payload: bytes) -> None:
        self.waiters.complete(key, token_of(payload), payload)
        for future in self.done([each for each in self.open if each[:2] == (key, payload)]):
            assert future.result(0) == payload

    @rule(key=KEYS, payload=PAYLOADS)
    def undecodable(self, key: bytes, payload: bytes) -> None:
        self.waiters.complete(key, token_of(payload), b"!" + payload)
        for future in self.done([each for each in self.open if each[:2] == (key, payload)]):
            assert isinstance(future.exception(0), UnreadableReply)

    @rule(key=KEYS)
    def reply_to_someone_who_sent_no_token(self, key: bytes) -> None:
        self.waiters.complete(key, b"", b"a stranger's")

    @rule(key=KEYS)
    def reply_of_an_older_release(self, key: bytes) -> None:
        of_key = [each for each in self.open if each[0] == key]
        self.waiters.complete(key, UNTOLD, b"untold")
        for future in self.done([each for each in of_key if each[1] == of_key[0][1]]):
            assert future.result(0) == b"untold"

    @rule(key=KEYS)
    def end_of_a_saga(self, key: bytes) -> None:
        self.waiters.complete_all(key, b"end")
        for future in self.done([each for each in self.open if each[0] == key]):
            assert future.result(0) == b"end"

    @rule(key=KEYS, payload=PAYLOADS)
    def undelivered(self, key: bytes, payload: bytes) -> None:
        error = ConnectionError("away")
        self.waiters.fail(key, token_of(payload), error)
        for future in self.done([each for each in self.open if each[:2] == (key, payload)]):
            assert future.exception(0) is error

    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        if self.open:
            chosen = data.draw(st.sampled_from(self.open))
            (future,) = self.done([chosen])
            assert future.cancel()

    @rule()
    def missed(self) -> None:
        self.waiters.fail_all(RepliesMissed)
        for future in self.done(list(self.open)):
            assert isinstance(future.exception(0), RepliesMissed)

    @rule()
    def close(self) -> None:
        self.waiters.end(ClientClosed)
        self.ended = True
        for future in self.done(list(self.open)):
            assert isinstance(future.exception(0), ClientClosed)

    @invariant()
    def nobody_else_is_touched_and_nobody_is_forgotten(self) -> None:
        assert not any(future.done() for _, _, future in self.open)
        assert len(self.waiters) == len(self.open)


TestAnyOrder: Any = AnyOrder.TestCase


@given(st.lists(st.sampled_from(["submit", "reply", "cancel"]), max_size=30))
def test_threads_that_submit_cancel_and_reply_at_once_leave_no_future_open(plan: list[str]) -> None:
    waiters = Waiters()
    futures: list[Future[bytes]] = [waiters.expect(b"k", b"t", decode)]

    def act(what: str) -> None:
        match what:
            case "submit":
                futures.append(waiters.expect(b"k", b"t", decode))
            case "reply":
                waiters.complete(b"k", b"t", b"answer")
            case _:
                futures[0].cancel()

    threads = [threading.Thread(target=act, args=(what,)) for what in plan]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiters.end(ClientClosed)

    assert all(future.done() for future in futures)
    assert len(waiters) == 0


def test_a_future_of_the_parent_process_says_so_in_a_fork_instead_of_waiting() -> None:
    future = Waiters().expect(b"k", b"t", decode)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            future.result(20)
        except ClientForked:
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
