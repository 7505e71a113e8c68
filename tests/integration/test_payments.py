"""The outbox of payments between a real Kafka and a real gateway process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from payments.outbox import group_id
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.payment import PaymentRefundRequested, PaymentRequested
from schemas.records import EventRecord, decode_command, encode
from tests.support.commanding import command, eventually
from tests.support.gateway import GatewayProcess
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.topics import Record, read_topic


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "home", tmp_path / "gateway.log") as process:
        yield process


@pytest.fixture
def env(
    servers: ServersAddress, prefix: str, tmp_path: Path, gateway: GatewayProcess
) -> dict[str, str]:
    found = environment(servers, prefix, tmp_path / "home", ORDERFLOW_GATEWAY_URL=gateway.url)
    topic_admin.apply(Settings.model_validate(found))
    return found


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return Settings.model_validate(env)


def requested(token: str | None, amount: int = 1_000) -> PaymentRequested:
    return PaymentRequested("o-1", amount, "EUR", token)


def history(
    settings: Settings, *events: tuple[str, PaymentRequested | PaymentRefundRequested | bytes]
) -> None:
    """Writes a history as a processor would."""
    producer = Producer(kafka.producer(settings))
    for number, (payment_id, event) in enumerate(events):
        value = event
        if not isinstance(value, bytes):
            kind = type(event).__name__
            data = json.loads(encode(event))
            value = encode(EventRecord(type=kind, id=f"c-{number}:0", version=1, occurred_at_ms=1))
            value = encode({**json.loads(value), "data": data})
        producer.produce(
            topics_of(settings).history("payment"),
            key=payment_id,
            value=value,
            headers={
                "correlation-id": "k-1",
                "traceparent": "00-aa-bb-01",
                "answer-to": "s-1/step",
                "causation-id": "c-0",
                "reply-partition": "3",
            },
        )
    assert producer.flush(30) == 0


def commands(settings: Settings) -> dict[str, Record]:
    """By command id; each of them once."""
    records = read_topic(settings, topics_of(settings).commands("payment"))
    found = {decode_command(record.value or b"").command_id: record for record in records}
    assert len(found) == len(records)
    return found


def until_sent(settings: Settings, count: int) -> None:
    """So many commands stand on the topic."""
    eventually(lambda: len(commands(settings)) == count)


def committed(settings: Settings) -> int:
    """Sum of the group's offsets."""
    consumer = Consumer(kafka.group_consumer(settings, group_id(settings)))
    try:
        topic = topics_of(settings).history("payment")
        asked = [TopicPartition(topic, number) for number in range(settings.partitions)]
        return sum(max(0, at.offset) for at in consumer.committed(asked, timeout=10))
    finally:
        consumer.close()


def test_commands_go_on_in_the_conversation_of_their_event_and_offsets_follow(
    settings: Settings, env: dict[str, str], gateway: GatewayProcess, tmp_path: Path
) -> None:
    history(
        settings,
        ("p-1", requested("tok_approve")),
        ("p-2", requested(None)),
        ("p-2", PaymentRefundRequested("late")),
        ("p-3", requested("tok_decline")),
    )
    with RoleProcess("payments", env, tmp_path / "payments.log") as process:
        until_sent(settings, 2)
        assert process.stop() == 0, process.text()
    found = commands(settings)
    assert found.keys() == {"p-1.capture", "p-3.decline"}
    assert found["p-1.capture"].key == b"p-1"
    assert found["p-1.capture"].headers == {
        "correlation-id": b"k-1",
        "traceparent": b"00-aa-bb-01",
        "answer-to": b"s-1/step",
        "causation-id": b"c-0:0",
    }
    assert [entry.key for entry in gateway.book().charges] == ["p-1"]
    assert committed(settings) == 4


def test_what_was_done_before_the_last_stop_is_not_done_again(
    settings: Settings, env: dict[str, str], gateway: GatewayProcess, tmp_path: Path
) -> None:
    history(settings, ("p-1", requested("tok_approve")))
    for number in (1, 2):
        with RoleProcess("payments", env, tmp_path / f"{number}.log") as process:
            until_sent(settings, number)
            if number == 1:
                assert process.stop() == 0
                history(settings, ("p-2", requested("tok_approve")))
    assert len(gateway.book().charges) == 2


def test_what_cannot_be_followed_is_set_aside_and_the_others_go_on(
    settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    history(settings, ("p-1", b"nonsense"), ("p-1", requested("tok_approve")))
    history(settings, ("p-1", requested("tok_approve", 2)), ("p-2", requested("tok_approve")))
    with RoleProcess("payments", env, tmp_path / "payments.log"):
        until_sent(settings, 2)
        dead = topics_of(settings).dead_letters
        eventually(lambda: len(read_topic(settings, dead)) == 2)
    letters = {
        letter.headers["orderflow.errors.code"].decode(): letter
        for letter in read_topic(settings, dead)
    }
    assert letters.keys() == {"unreadable", "key_reused"}
    assert letters["unreadable"].value == b"nonsense"
    assert letters["unreadable"].key == b"p-1"
    assert letters["unreadable"].headers["orderflow.errors.stage"] == b"payments"
    assert letters["unreadable"].headers["orderflow.errors.topic"].endswith(b".payment.history")
    assert letters["unreadable"].headers["correlation-id"] == b"k-1"


def test_many_that_no_payment_can_have_hold_up_nobodys_payment(
    settings: Settings, env: dict[str, str], gateway: GatewayProcess, tmp_path: Path
) -> None:
    """They are more than the role holds at a time, and are there after it was killed, too."""
    key = "a\nb" * 30_000
    forged: list[tuple[str, PaymentRequested | PaymentRefundRequested]] = [
        ("p-bad", requested("tok_approve", -1)),
        ("p-bad", requested("tok_approve", 2**53)),
        ("p-bad", PaymentRequested("o-1", 5, "EUR", "tok_approve", gateway_key=key)),
        ("p-bad", PaymentRequested("o-1", 5, "no currency", "tok_approve")),
        ("p-bad", PaymentRequested("o-1", 5, "EUR", "t" * 1_000)),
        ("p-bad", PaymentRequested("o\n1", 5, "EUR", "tok_approve")),
        ("p-bad", PaymentRequested("o-1", 5, "EUR", "tok_approve", gateway_key="p-1.5c0pe")),
        ("p-bad", PaymentRefundRequested("late", "tok_approve", "p-1.5c0pe")),
    ]
    history(settings, *forged)
    many: list[tuple[str, PaymentRequested | PaymentRefundRequested]] = [
        (f"p-{number}", requested("tok_approve", -1)) for number in range(11_000)
    ]
    history(settings, *many, ("p-1", requested("tok_approve")))
    for log in ("first.log", "second.log"):
        with RoleProcess("payments", env, tmp_path / log) as process:
            eventually(lambda: "p-1.capture" in commands(settings), 120)
            eventually(lambda: committed(settings) == len(forged) + len(many) + 1, 120, 0.5)
            assert len(process.text()) < 20 * 1024 * 1024
            process.kill()
    letters = read_topic(settings, topics_of(settings).dead_letters)
    assert {letter.headers["orderflow.errors.code"] for letter in letters} == {b"unreadable"}
    assert len({letter.headers["orderflow.errors.offset"] for letter in letters}) > 5_000
    assert [entry.key for entry in gateway.book().charges] == ["p-1"]


@pytest.mark.parametrize(
    "booked",
    [
        [("CapturePayment", {"amount": 1})],
        [
            ("CapturePayment", {"amount": 400, "reference": "cash"}),
            ("RequestRefund", {"reason": "x"}),
        ],
        [("CapturePayment", {}), ("RefundPayment", {})],
        [("FailPayment", {"reason": "x"})],
    ],
    ids=lambda booked: " ".join(kind for kind, _ in booked),
)
def test_what_a_person_books_while_the_gateway_charges_leaves_no_money_in_no_book(
    settings: Settings,
    env: dict[str, str],
    gateway: GatewayProcess,
    tmp_path: Path,
    booked: list[tuple[str, dict[str, Any]]],
) -> None:
    with (
        RoleProcess("processors", env, tmp_path / "processors.log"),
        RoleProcess("payments", env, tmp_path / "payments.log"),
        CommandClient(settings) as client,
    ):
        asked: dict[str, Any] = {
            "order_id": "o-1",
            "amount": 1_000,
            "currency": "EUR",
            "token": "tok_slow_3000",
        }
        assert client.execute(command("p-1", "RequestPayment", **asked), READY_WITHIN_S).accepted
        for kind, data in booked:
            assert client.execute(command("p-1", kind, **data)).accepted
        eventually(lambda: gateway.book().charges, READY_WITHIN_S)
        eventually(lambda: gateway.book().refunds, READY_WITHIN_S)
    (charge,), (refund,) = gateway.book().charges, gateway.book().refunds
    assert (charge.key, charge.amount) == (refund.key, refund.amount)


def test_without_a_gateway_the_role_says_what_to_set(env: dict[str, str], tmp_path: Path) -> None:
    del env["ORDERFLOW_GATEWAY_URL"]
    with RoleProcess("payments", env, tmp_path / "payments.log") as process:
        assert process.wait() == 1
        assert "set ORDERFLOW_GATEWAY_URL" in process.text()
