"""Letters that hold nothing are handled again at the desk: the cause is mended, the record stands as it was.

Each letter is one that an older release wrote, about a record that this one can handle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Message, Producer

from orderflow.dead_letters import Desk, LetterRefused, Order
from payments.role import GatewayNotConfigured
from readmodels import Queries
from runtime import kafka, topic_admin
from runtime.embedded import ServersAddress
from runtime.records import Headers
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.letters import Failure, letter_marks
from schemas.payment import PaymentRequested
from schemas.records import EventRecord, decode_command, encode
from schemas.saga import SagaResolved
from tests.support.events import stock
from tests.support.gateway import GatewayProcess
from tests.support.processes import environment
from tests.support.topics import read_topic

RETRY = Order(action="retry", by="ann", note="mended")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "home", tmp_path / "gateway.log") as process:
        yield process


@pytest.fixture
def settings(servers: ServersAddress, prefix: str, tmp_path: Path) -> Settings:
    found = Settings.model_validate(environment(servers, prefix, tmp_path / "home"))
    topic_admin.apply(found)
    return found


def a_letter(settings: Settings, stage: str, topic: str, key: str, value: bytes) -> str:
    """Puts the record where it belongs, and its dead letter; returns the letter's id."""
    producer, written = Producer(kafka.producer(settings)), list[Message]()

    def put(to: str, headers: Headers) -> Message:
        producer.produce(
            to, value, key, headers=headers, on_delivery=lambda _, m: written.append(m)
        )
        assert producer.flush(30) == 0
        return written[-1]

    came: Headers = [("correlation-id", b"k-1"), ("answer-to", b"s-1/step")]
    record = put(topic, came)
    place = topic, record.partition() or 0, record.offset() or 0
    failure = Failure("unsupported_schema_version", "version 2 is newer", stage)
    letter = put(topics_of(settings).dead_letters, [*letter_marks(came, failure, place, 1)])
    return f"{letter.partition()}-{letter.offset()}"


def an_event(event: PaymentRequested | SagaResolved) -> bytes:
    data = msgspec.Raw(encode(event))
    kind = type(event).__name__
    return encode(EventRecord(type=kind, id="c-1:0", version=1, occurred_at_ms=1, data=data))


def actions(desk: Desk, letter_id: str) -> list[tuple[bool, str]]:
    return [(action.settled, action.result) for action in desk.letter(letter_id).actions]


def test_a_views_row_is_made_from_the_newest_record(settings: Settings) -> None:
    topic = topics_of(settings).events("inventory")
    letters = [
        a_letter(settings, "decode", topic, "sku-1", stock("sku-1", v, on_hand=v).value or b"")
        for v in (1, 2)
    ]
    desk = Desk(settings)
    settlement = desk.settle(letters[0], RETRY)
    assert (settlement.settled, settlement.result) == (True, "stock written")
    with Queries(settings) as queries:
        answer = queries.stock("sku-1")
    assert answer is not None
    assert (answer.version, answer.on_hand) == (2, 2)
    assert [desk.letter(one).open for one in letters] == [False, True]
    with pytest.raises(LetterRefused, match="settled already: retry by ann"):
        desk.settle(letters[0], RETRY)


def test_what_still_cannot_be_handled_stays_open_and_the_try_stands_in_the_audit(
    settings: Settings,
) -> None:
    topics, desk = topics_of(settings), Desk(settings)
    for stage, topic, code in (
        ("decode", topics.events("inventory"), "malformed"),
        ("reactor", topics.history("saga"), "malformed"),
        ("payments", topics.history("payment"), "unreadable"),
    ):
        letter = a_letter(settings, stage, topic, "x-1", b"nonsense")
        settlement = desk.settle(letter, RETRY)
        assert (settlement.settled, settlement.code) == (False, code)
        assert desk.letter(letter).open
        assert actions(desk, letter) == [(False, "failed")]
        with pytest.raises(LetterRefused, match="cannot be edited"):
            desk.settle(letter, Order(action="edit", by="ann", record=b"{}"))
        assert desk.settle(letter, Order(action="discard", by="ann")).settled
        assert actions(desk, letter) == [(False, "failed"), (True, "discarded")]


def test_what_a_reactor_could_not_read_has_its_commands(settings: Settings) -> None:
    topics = topics_of(settings)
    resolved = an_event(SagaResolved("ann", "by hand", "payment.process"))
    letter = a_letter(settings, "reactor", topics.history("saga"), "o-1:payment", resolved)
    settlement = Desk(settings).settle(letter, RETRY)
    assert (settlement.settled, settlement.result) == (True, "2 commands follow")
    sent = read_topic(settings, topics.commands("saga"))
    assert {record.key for record in sent} == {b"o-1"}
    assert {record.headers["correlation-id"] for record in sent} == {b"k-1"}


def test_what_payments_could_not_read_is_asked_for_and_sent_in_its_conversation(
    settings: Settings, gateway: GatewayProcess
) -> None:
    topics = topics_of(settings)
    wanted = an_event(PaymentRequested("o-1", 1_000, "EUR", "tok_approve"))
    letter = a_letter(settings, "payments", topics.history("payment"), "p-1", wanted)
    with pytest.raises(GatewayNotConfigured, match="ORDERFLOW_GATEWAY_URL"):
        Desk(settings).settle(letter, RETRY)
    desk = Desk(settings.model_copy(update={"gateway_url": gateway.url}))
    assert desk.letter(letter).open
    assert desk.settle(letter, RETRY).result == "1 command follows"
    (sent,) = read_topic(settings, topics.commands("payment"))
    assert decode_command(sent.value or b"").command_id == "p-1.capture"
    assert sent.key == b"p-1"
    assert (sent.headers["correlation-id"], sent.headers["answer-to"]) == (b"k-1", b"s-1/step")
    assert [entry.key for entry in gateway.book().charges] == ["p-1"]


def test_a_letter_of_a_webhook_says_what_can_be_done(settings: Settings) -> None:
    topic = topics_of(settings).history("order")
    letter = a_letter(settings, "webhooks", topic, "o-1", b"nonsense")
    with pytest.raises(LetterRefused, match="webhooks redeliver"):
        Desk(settings).settle(letter, RETRY)
    assert Desk(settings).settle(letter, Order(action="discard", by="ann")).settled
