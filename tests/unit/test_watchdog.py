"""Calls that never return: they are left behind, or the process ends and says where it hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from processors import transaction
from processors.transaction import Calls, PendingCommit, TransactionalWriter, TransactionFailed
from runtime import watchdog
from runtime.worker import Worker

HANGS = """
import logging, threading, time
logging.basicConfig()
from runtime import watchdog
with watchdog.Watchdog("tester", hangs_after_s=1.5):
    until = time.monotonic() + 4
    while time.monotonic() < until:
        time.sleep(0.1)
        watchdog.beat()
    print("alive", flush=True)
    threading.Event().wait()  # as a library that ignores its time-out
"""


def test_a_process_whose_main_loop_hangs_ends_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "alive" in done.stdout
    assert "tester hangs" in done.stderr
    assert "threading.py" in done.stderr


ONE_OF_TWO_HANGS = """
import logging
logging.basicConfig()
from runtime import watchdog
with watchdog.Watchdog("tester", hangs_after_s=1.5), watchdog.watched("first"):
    with watchdog.watched("gone"):
        pass
    with watchdog.watched("second"):
        while True:
            time.sleep(0.1)
            watchdog.beat("first")
"""


def test_a_loop_that_hangs_is_not_covered_by_another_on_its_thread() -> None:
    script = f"import time\n{ONE_OF_TWO_HANGS}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "tester hangs: its second has made no turn" in done.stderr


def test_what_beats_where_nobody_watches_does_nothing() -> None:
    with watchdog.watched("loop"):
        watchdog.beat("loop")
    assert asyncio.run(watchdog.beating(asyncio.sleep(0, "done"))) == "done"


def test_a_worker_runs_calls_in_order_and_gives_what_they_return_or_raise() -> None:
    worker = Worker("tester")
    first = worker.submit(lambda: 1)
    failed: Future[float] = worker.submit(lambda: 1 / 0)
    third = worker.submit(pow, 2, 3)
    assert (first.result(10), third.result(10)) == (1, 8)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    worker.close()


class _Writer(TransactionalWriter):
    """Only what is left behind."""

    def __init__(self) -> None:
        self.left: list[str] = []

    def leave_behind(self, name: str) -> None:
        self.left.append(name)


def test_a_call_that_outlives_its_time_out_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "HANG_MARGIN_S", 0.2)
    monkeypatch.setattr(transaction, "LOOK_EVERY_S", 0.05)
    writer, calls, worker, returns = _Writer(), Calls(), Worker("tester"), threading.Event()
    ends = worker.submit(calls.make, "send_offsets", lambda: returns.wait(60), 0.1)
    pending = PendingCommit(writer, ends, calls)  # type: ignore[arg-type]
    with pytest.raises(TransactionFailed, match="send_offsets hangs"):
        pending.result()
    assert pending.done()
    assert writer.left == ["send_offsets"]
    returns.set()
    ends.result(10)
    assert calls.hanging() is None


def test_a_retriable_call_is_repeated_and_no_other() -> None:
    answers = [KafkaError(KafkaError._TIMED_OUT), None]

    def once_too_late() -> None:
        error = answers.pop(0)
        if error is not None:
            raise KafkaException(error)

    calls = Calls()
    with pytest.raises(KafkaException):  # not retriable: the library has not said so
        calls.make("commit", once_too_late, 5)
    calls.make("commit", once_too_late, 5)
    assert calls.hanging() is None
