"""What is broken outside is logged once, and once that it works again, however often it is tried."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.condition import NO_REPETITION, REMIND_S, Repetitions
from runtime.kafka_log import BrokerOutages, broker_in

REFUSED = (
    "FAIL [rdkafka#consumer-1] [thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap:"
    " Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
)
UNAUTHENTICATED = (
    "FAIL [p] [thrd:sasl_ssl://k-1:9093/2]: sasl_ssl://k-1:9093/2: SASL authentication error: wrong"
)
UNABLE = "Unable connect to node with id 1: [Errno 111] Connect call failed ('127.0.0.1', 9092)"


def record(name: str, text: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, None, None)


def lines_of_an_outage(
    filtered: Repetitions, every_s: float, seconds: float, clock: list[float]
) -> int:
    said = 0
    end = clock[0] + seconds
    while clock[0] < end:
        said += filtered.filter(record("runtime.sending", "not sent, trying again: timed out"))
        clock[0] += every_s
    return said


@settings(deadline=None, max_examples=20)
@given(st.floats(0.2, 5.0), st.floats(1.0, 3_000.0))
def test_a_line_that_keeps_coming_is_said_once_in_ten_minutes(
    every_s: float, seconds: float
) -> None:
    clock = [0.0]
    filtered = Repetitions(lambda: clock[0])
    assert 1 <= lines_of_an_outage(filtered, every_s, seconds, clock) <= 1 + seconds / REMIND_S


def test_a_line_that_comes_again_after_a_while_is_news_and_says_what_was_left_out() -> None:
    clock = [0.0]
    filtered = Repetitions(lambda: clock[0])
    assert lines_of_an_outage(filtered, 1.0, 30.0, clock) == 1
    clock[0] += 100.0
    again = record("runtime.sending", "not sent, trying again: timed out")
    assert filtered.filter(again)
    assert again.getMessage().endswith("(29 times more since it was last said)")


def test_different_lines_of_ours_are_all_said_and_those_of_libraries_by_kind() -> None:
    filtered = Repetitions(lambda: 0.0)
    ours = [record("payments.asking", f"payment p-{n}, try 1: refused") for n in range(5)]
    theirs = [record("aiokafka.consumer.fetcher", f"Failed fetch from {n}") for n in range(5)]
    assert [filtered.filter(one) for one in ours] == [True] * 5
    assert [filtered.filter(one) for one in theirs] == [True] + [False] * 4
    assert all(filtered.filter(record("a", "same", logging.INFO)) for _ in range(3))
    once = record("runtime.kafka_log", "away")
    once.__dict__.update(NO_REPETITION)
    assert filtered.filter(once)
    assert filtered.filter(once)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (REFUSED, ("127.0.0.1", 9092)),
        (UNABLE, ("127.0.0.1", 9092)),
        (
            "FAIL [p] [thrd:sasl_ssl://k-1.example:9093/2]: sasl_ssl://k-1.example:9093/2: SASL error",
            ("k-1.example", 9093),
        ),
        (
            "FAIL [c] [thrd:[::1]:9092/bootstrap]: [::1]:9092/bootstrap: Connect to ipv6#[::1]:9092",
            ("::1", 9092),
        ),
        (
            "FAIL [c] [thrd:nowhere:9092/bootstrap]: nowhere:9092/bootstrap: Failed to resolve",
            ("nowhere", 9092),
        ),
        ("GETPID [p] [thrd:main]: Failed to acquire transactional PID from broker x", None),
        ("Heartbeat failed for group g: coordinator (node 1) is not started", None),
    ],
)
def test_lines_about_a_broker_are_told_from_others(
    text: str, address: tuple[str, int] | None
) -> None:
    found = broker_in(text)
    assert (found and found[0]) == address


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_outage_of_a_broker_is_two_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.kafka_log.PROBE_EVERY_S", 0.01)
    monkeypatch.setattr("runtime.kafka_log.QUIET_S", 0.05)
    there = [False]
    outages = BrokerOutages(lambda _: there[0])
    caplog.set_level(logging.INFO)
    for outage in (1, 2):
        there[0] = False
        for _ in range(500):
            assert not outages.filter(record("librdkafka", REFUSED))
            assert not outages.filter(record("aiokafka", UNABLE))
        eventually(lambda n=2 * outage - 1: len(caplog.records) == n)  # type: ignore[misc]
        said = [one.getMessage() for one in caplog.records]
        assert len(said) == 2 * outage - 1
        assert "127.0.0.1:9092 is away: Connect to ipv4#127.0.0.1:9092 failed" in said[-1]
        there[0] = True
        eventually(lambda n=2 * outage: len(caplog.records) == n)  # type: ignore[misc]
        assert "127.0.0.1:9092 is back after" in caplog.records[-1].getMessage()


def test_a_broker_that_answers_nobody_is_not_said_to_be_back_for_ever(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.kafka_log.PROBE_EVERY_S", 0.005)
    monkeypatch.setattr("runtime.kafka_log.QUIET_S", 0.01)
    monkeypatch.setattr("runtime.kafka_log.RELAPSE_S", 1.0)
    outages = BrokerOutages(lambda _: True)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        outages.filter(record("librdkafka", UNAUTHENTICATED))
        time.sleep(0.05)
    assert 1 <= len(caplog.records) <= 14


def test_lines_that_come_when_the_outage_is_over_tell_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.kafka_log.PROBE_EVERY_S", 0.01)
    probed: list[tuple[str, int]] = []

    def reachable(address: tuple[str, int]) -> bool:
        probed.append(address)
        return True

    outages = BrokerOutages(reachable)
    for _ in range(100):
        assert not outages.filter(record("librdkafka", REFUSED.replace("9092", "9999")))
    eventually(lambda: probed)
    time.sleep(0.1)
    assert not [one for one in caplog.records if "9999" in one.getMessage()]
