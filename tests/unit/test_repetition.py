"""Repetition as it is documented: what makes a command the same one, and what may steer nothing."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from commands import by_name
from orderflow.memory_pipeline import TOPICS
from orderflow.placing import order_command
from payments.ledger import Ledger
from processors.digest import digest
from processors.edge import Edge, Request
from sagas import AGGREGATES
from schemas import headers
from schemas.ids import is_end_key
from schemas.records import Outcome, decode_event, decode_outcome, encode
from schemas.rejections import Code
from schemas.saga import SagaState, SagaStatus
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.saga_stories import drain, order, settle, shop
from tests.support.world import World

HOUR_MS = 3_600_000
aggregate_of = {aggregate.name: aggregate for aggregate in AGGREGATES}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)
names = st.text(st.characters(codec="utf-8"), max_size=3)
free_json: Any = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects: Any = st.dictionaries(names, free_json, max_size=4)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON, its fields in another order at every depth."""
    if isinstance(value, dict):
        items = [(key, shuffled(v, rng)) for key, v in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(v, rng) for v in value]
    return value


def read(aggregate: str, kind: str, data: Any, spaces: int | None = None) -> Request:
    value = json.dumps({"type": kind, "command_id": "c", "data": data}, indent=spaces).encode()
    request = Edge(aggregate_of[aggregate], 1).read(b"o-1", value, 0)
    assert isinstance(request, Request)
    return request


def bodies(data: Any) -> list[tuple[str, str, Any]]:
    """The same free JSON in every place that takes it, and in commands that are refused."""
    return [
        ("saga", "StartSaga", {"saga": "x", "input": data}),
        ("stream", "AppendEvents", {"events": [{"type": "A", "data": data}]}),
        ("saga", "RecordAnswer", {"token": "t", "type": "T", "accepted": True, "events": [data]}),
        ("user", "RegisterUser", {"name": "", "email": data}),
        ("user", "NoSuchCommand", data),
    ]


@given(objects, st.randoms(use_true_random=False), st.sampled_from([None, 2]))
def test_any_order_of_fields_and_any_blanks_are_the_same_command(
    data: Any, rng: random.Random, spaces: int | None
) -> None:
    for aggregate, kind, body in bodies(data):
        other = read(aggregate, kind, shuffled(body, rng), spaces)
        assert other.digest == read(aggregate, kind, body).digest, kind


@given(objects, objects)
def test_what_means_something_else_is_another_command(one: Any, other: Any) -> None:
    assume(json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True))
    for (aggregate, kind, body), (_, _, different) in zip(bodies(one), bodies(other), strict=True):
        assert read(aggregate, kind, body).digest != read(aggregate, kind, different).digest, kind


def test_integers_of_any_size_are_told_apart() -> None:
    for aggregate, kind, body in bodies({"n": 2**80}):
        (*_, other) = next(b for b in bodies({"n": 2**80 + 1}) if b[:2] == (aggregate, kind))
        assert read(aggregate, kind, body).digest != read(aggregate, kind, other).digest


def test_data_that_is_no_json_is_its_bytes() -> None:
    edge = Edge(by_name["user"], 1)
    found = [
        edge.read(b"ada", b'{"type":"RegisterUser","command_id":"c","data":{"name":"%b"}}' % end, 0)
        for end in (b"\xff", b"\xfe", b"\xff")
    ]
    digests = [one.digest for one in found if isinstance(one, Request)]
    assert len(digests) == 3
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("number", ["NaN", "1e999", "-1e999", "-Infinity", "[[1e400]]"])
@pytest.mark.parametrize(
    ("aggregate", "kind", "data"),
    [
        ("stream", "AppendEvents", '{"events":[{"type":"A","data":{"a":{"b":%s}}}]}'),
        ("saga", "StartSaga", '{"saga":"create_order","input":{"a":%s}}'),
        ("saga", "RecordAnswer", '{"token":"t","type":"T","accepted":true,"events":[{"a":%s}]}'),
    ],
)
def test_numbers_that_json_cannot_store_are_refused(
    number: str, aggregate: str, kind: str, data: str
) -> None:
    value = f'{{"type":"{kind}","command_id":"c","data":{data % number}}}'.encode()
    request = Edge(aggregate_of[aggregate], 1).read(b"o-1", value, 0)
    assert request.rejection is not None, "it would be stored as null"
    # NaN and Infinity are no JSON at all.
    expected = Code.INVALID_DATA if "1e" in number else Code.MALFORMED
    assert request.rejection.code is expected


def outcomes(world: World) -> list[Outcome]:
    replies = [r for r in world.log if r.topic == TOPICS.replies and not is_end_key(r.key or b"")]
    return [decode_outcome(reply.value or b"") for reply in replies]


WAITS = (headers.REPLY_PARTITION, b"3")


def test_the_same_order_with_another_correlation_id_is_the_same_order() -> None:
    world = shop()
    for correlation_id in (None, "mine", "yours"):
        world.send(order_command("o-1", **order(), correlation_id=correlation_id), WAITS)
        drain(world)
    assert [outcome.accepted for outcome in outcomes(world)] == [True, True, True]
    assert world.history(SAGA, "o-1").count("SagaStarted") == 1


def test_the_same_order_with_its_fields_in_another_order_is_the_same_order() -> None:
    world = shop()
    first = order_command("o-1", **order())
    data = json.loads(first.data)
    other = {"input": dict(reversed(data["input"].items())), "saga": data["saga"]}
    for each in (first, replace(first, data=encode(other))):
        world.send(each, WAITS)
        drain(world)
    assert [outcome.accepted for outcome in outcomes(world)] == [True, True]


def test_an_order_that_was_sent_before_an_upgrade_is_known_after_it() -> None:
    """The release before took the digest of the fields as they came."""
    world = shop()
    sent = order_command("o-1", **order())
    former = digest(b"StartSaga\n1\nNone\n", sent.data)
    assert former != read("saga", "StartSaga", json.loads(sent.data)).digest
    world.send(sent, WAITS)
    drain(world)
    inbox = world.stores[SAGA].inbox
    key = b"o-1/" + sent.command_id.encode()
    first = json.loads(inbox.get(key) or b"")
    inbox.write({key: encode(first | {"digest": former})}, 1)
    world.send(sent, WAITS)
    drain(world)
    assert outcomes(world)[-1].accepted


@pytest.mark.parametrize("occurred_at_ms", [0, 1, 4_102_444_800_000, 253_402_300_799_999])
@pytest.mark.parametrize("coordination", ["orchestration", "choreography"])
def test_when_a_sender_says_it_happened_steers_no_timer(
    occurred_at_ms: int, coordination: Any
) -> None:
    world = shop()
    sent = order_command("o-1", **order(), coordination=coordination)
    world.send(replace(sent, occurred_at_ms=occurred_at_ms))
    world.deliver((SAGA, b"o-1"))
    saga = world.states(SAGA, SagaState)["o-1"]
    assert saga.wakes_at_ms is not None
    assert 0 < saga.wakes_at_ms - world.now_ms <= HOUR_MS
    drain(world)
    assert world.states(SAGA, SagaState)["o-1"].status is SagaStatus.COMPLETED


def test_other_aggregates_keep_the_time_that_a_sender_says() -> None:
    world = shop()
    register = replace(command("eve", "RegisterUser", name="Eve"), occurred_at_ms=1_291_191_960_000)
    world.send(register)
    drain(world)
    (event,) = [r for r in world.log if r.topic == TOPICS.history("user") and r.key == b"eve"]
    assert decode_event(event.value or b"").occurred_at_ms == 1_291_191_960_000


@pytest.mark.parametrize(
    "correlation_id", [b"two words/and a slash", b"", b"\xff\xfe", b"x" * 500, b"nul\x00"]
)
def test_an_order_by_choreography_takes_any_correlation_id(correlation_id: bytes) -> None:
    world = shop()
    sent = order_command("o-1", **order(), coordination="choreography")
    marks = [(headers.CORRELATION_ID, correlation_id)]
    world.enqueue(TOPICS.commands(SAGA), b"o-1", sent.value(), list(marks))
    drain(world)
    sagas = world.states(SAGA, SagaState)
    assert {saga.status for saga in sagas.values()} == {SagaStatus.COMPLETED}
    assert not [record for record in world.log if record.topic == TOPICS.dead_letters]


@pytest.mark.parametrize("coordination", ["orchestration", "choreography"])
@pytest.mark.parametrize("reason", ["card\x00 declined", "\x00", "d" * 200])
def test_whatever_words_a_payment_is_declined_with_the_order_ends(
    monkeypatch: pytest.MonkeyPatch, coordination: Any, reason: str
) -> None:
    decline = Ledger.decline
    monkeypatch.setattr(Ledger, "decline", lambda self, charge, _: decline(self, charge, reason))
    world = shop()
    world.send(order_command("o-1", **order("tok_decline"), coordination=coordination))
    settle(world)  # without any time passing
    assert world.states(SAGA, SagaState)["o-1"].status is SagaStatus.COMPENSATED
    assert not [record for record in world.log if record.topic == TOPICS.dead_letters]
