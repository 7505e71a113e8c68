"""Whatever comes in, a processor answers it or keeps it, and what it writes fits a topic."""

from __future__ import annotations

import contextlib
import copy
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.decider import Decider
from processors.isolation import Isolation
from processors.memory import MemoryState
from processors.outbox import command_record
from processors.saga_decider import SagaDecider, appointment
from processors.unit_of_work import Case
from runtime.records import LATEST_MS, IncomingRecord, OutgoingRecord, occurred_at_ms
from sagas import AGGREGATES
from schemas import headers, limits
from schemas.ids import is_id
from schemas.letters import Failure, letter_of
from schemas.parking import Parked, parked_key
from schemas.partitioner import partition_of
from schemas.records import decode_event, decode_outcome
from schemas.rejections import Code
from schemas.topics import SAGA, Topics
from tests.support import events

ORDER_INPUT: Final = {
    "user_id": "ada",
    "currency": "EUR",
    "lines": [{"sku": "A", "quantity": 1, "unit_price": 5}],
    "payment_token": "tok_1",
}
TOPICS: Final = Topics("t", partitions=1)
BY_NAME: Final = {aggregate.name: aggregate for aggregate in AGGREGATES}
MIB: Final = limits.MIB


def decider(name: str, store: MemoryState | None = None) -> Decider:
    store = store or MemoryState(appointment if name == SAGA else None)
    kind = SagaDecider if name == SAGA else Decider
    made = kind(BY_NAME[name], TOPICS, 0, store)
    made.ready()
    return made


def incoming(
    key: bytes | None,
    value: bytes | None,
    marks: Sequence[tuple[str, str | bytes | None]] = (),
    *,
    name: str = "user",
    offset: int = 7,
    unreadable: bool = False,
) -> IncomingRecord:
    topic = TOPICS.commands(name)
    return IncomingRecord(topic, 0, offset, 1_000, key, value, [*marks], unreadable=unreadable)


def sent(kind: str, data: Any, command_id: str = "c1", **more: Any) -> bytes:
    return json.dumps({"type": kind, "command_id": command_id, "data": data, **more}).encode()


REGISTER: Final = sent("RegisterUser", {"name": "Ada"})


def fits(record: OutgoingRecord) -> bool:
    size = limits.record_bytes(record.key, record.value, record.headers)
    return size <= limits.MAX_RECORD_BYTES - limits.KIB


def outcomes(records: list[OutgoingRecord], name: str = "user") -> list[Any]:
    found = (r for r in records if r.topic == TOPICS.outcomes(name))
    return [decode_outcome(record.value or b"") for record in found]


def letters(records: list[OutgoingRecord]) -> list[OutgoingRecord]:
    return [record for record in records if record.topic == TOPICS.dead_letters]


# Any bytes and headers.


def nested(depth: int, what: bytes) -> bytes:
    return what.replace(b"?", b"[" * depth + b"]" * depth)


SHAPES: Final = (
    b'{"type":"RegisterUser","command_id":"c1","data":?}',
    b'{"x":?,"type":"RegisterUser","command_id":"c1","data":{"name":"A"}}',
    b'{"type":"AppendEvents","command_id":"c1","data":{"events":[{"type":"A","data":{"a":?}}]}}',
    b'{"type":"StartSaga","command_id":"c1","data":{"saga":"create_order","input":{"a":?}}}',
    b'{"type":"RecordAnswer","command_id":"c1","data":{"token":"a/0","type":"A","events":[?]}}',
    b'{"type":?,"command_id":"c1"}',
    b'{"type":"RegisterUser","command_id":?}',
)
numbers = st.sampled_from(
    (b"NaN", b"1e999", b"-1e999", b"9" * 4_300, b"9" * 5_000, b"-0", b"1e400")
)
scalars = st.one_of(
    numbers,
    st.binary(max_size=20),
    st.sampled_from(
        (b'"\\ud800"', b'"\\u0000"', b"null", b'"' + b"\\u0001" * 300 + b'"', b'"\xff"')
    ),
    st.text(max_size=10).map(lambda text: json.dumps(text).encode()),
)
depths = st.one_of(st.integers(0, 260), st.integers(900, 1_100), st.just(100_000))
values = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.builds(nested, depths, st.sampled_from(SHAPES)),
    st.builds(lambda value, shape: shape.replace(b"?", value), scalars, st.sampled_from(SHAPES)),
    st.builds(
        lambda name, value: b'{"type":"RegisterUser","command_id":"c1","%b":%b}' % (name, value),
        st.sampled_from((b"schema_version", b"expected_version", b"command_id", b"data")),
        scalars,
    ),
)
names = st.sampled_from(
    (
        *headers.PASSED_ON,
        headers.REPLY_PARTITION,
        headers.OCCURRED_AT_MS,
        headers.ERROR_CODE,
        "",
        "é",
    )
)
marks = st.lists(
    st.tuples(
        names,
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.sampled_from(
                (b"9" * 5_000, b"\x01" * 3_000, b"o-1/step/0", b"\xff", b"1", b"y" * 70_000)
            ),
        ),
    ),
    max_size=5,
)
keys = st.one_of(
    st.none(), st.binary(max_size=10), st.sampled_from((b"ada", b"ada", b"x" * 129, b"k" * 100_000))
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(BY_NAME)),
    records=st.lists(st.tuples(keys, values, marks, st.booleans()), min_size=1, max_size=4),
)
def test_whatever_comes_in_has_an_outcome_or_a_letter_and_the_next_command_goes_on(
    name: str, records: list[Any]
) -> None:
    one = decider(name)
    answered: set[bytes | None] = set()  # what comes again needs no second outcome
    for offset, (key, value, sent_marks, unreadable) in enumerate(records):
        record = incoming(
            key,
            value,
            [] if unreadable else sent_marks,
            name=name,
            offset=offset,
            unreadable=unreadable,
        )
        written = one.decide_all([record])
        assert all(fits(each) for each in written)
        assert written or key in answered, "nothing says what became of it"
        if outcomes(written, name):
            answered.add(key)
        assert all(
            dict(letter.headers)[headers.ERROR_CODE] != Code.INTERNAL_ERROR.encode()
            for letter in letters(written)
        ), "it was refused by no rule, but by the last line of defence"
        if not is_id((key or b"").decode(errors="replace")):
            assert len(letters(written)) == 1
    one.seal()
    user = decider("user")
    assert outcomes(user.decide_all([incoming(b"bob", REGISTER)]))[0].accepted


@settings(deadline=None)
@given(value=values)
def test_whatever_is_stored_stops_only_its_own_aggregate(value: bytes | None) -> None:
    store = MemoryState(appointment)
    wrong = {b"ada": value, b"\xff": value, parked_key(b"ada", 3): value}
    for copied in (store.states, store.inbox, store.parked):
        copied.write(wrong | {b"ada/c1": value, b"no key of this topic": value}, 1)
    one = decider(SAGA, store)
    started = sent("StartSaga", {"saga": "create_order", "input": ORDER_INPUT})
    one.due(LATEST_MS)
    one.decide_all([incoming(b"ada", started, name=SAGA)])
    (outcome,) = outcomes(one.decide_all([incoming(b"o-1", started, name=SAGA)]), SAGA)
    assert outcome.accepted


offsets = st.one_of(
    st.integers(0, 20), st.sampled_from((2**31, 2**63 - 1, 2**63, 10**19, 10**20 - 1))
)


@given(
    at=st.lists(offsets, min_size=1, max_size=3, unique=True),
    says=st.none() | offsets,
    value=st.sampled_from((b"", b"no command", b"{}", b'{"type":"X"}')),
    attempts=st.integers(0, 2),
)
def test_what_another_client_has_parked_makes_no_command_vanish(
    at: list[int], says: int | None, value: bytes, attempts: int
) -> None:
    store = MemoryState()
    for offset in at:
        parked = {
            "offset": offset if says is None else says,
            "occurred_at_ms": 1,
            "value": b64encode(value).decode(),
            "attempts": attempts,
        }
        store.parked.write({parked_key(b"ada", offset): json.dumps(parked).encode()}, 1)
    one = decider("user", store)
    register = sent("RegisterUser", {"name": "Ada"}), sent("DeactivateUser", {"reason": "x"}, "c2")
    written = []
    for number, command in enumerate(register):
        answer = one.decide_all([incoming(b"ada", command, offset=7 + number)])
        assert answer, "it has vanished"
        written += answer
    for _ in range(10):
        written += one.due(LATEST_MS)
    found = [outcome.command_id for outcome in outcomes(written)]
    assert found == ["c1", "c2"]
    assert not one.moving


@given(
    at=st.lists(offsets, min_size=1, max_size=3, unique=True),
    attempts=st.integers(0, 2),
    kind=st.sampled_from(("RegisterUser", "DeactivateUser", "RetryParked", "Unknown")),
)
@example(at=[7], attempts=1, kind="RegisterUser")
def test_a_key_is_only_held_by_a_parked_command_that_counts_as_failed(
    at: list[int], attempts: int, kind: str
) -> None:
    """Operators see that one. Whatever another client has parked, a command that came is answered, or it
    is parked behind it.
    """
    store = MemoryState()
    for offset in at:
        data = {"by": "eve", "offset": 1} if kind == "RetryParked" else {"name": "E", "reason": "x"}
        value = b64encode(sent(kind, data, f"f{offset}")).decode()
        forged = {"offset": offset, "occurred_at_ms": 1, "attempts": attempts, "value": value}
        store.parked.write({parked_key(b"ada", offset): json.dumps(forged).encode()}, 1)
    one = decider("user", store)
    written = []
    for number, command_id in enumerate(("c1", "c2")):
        register = sent("RegisterUser", {"name": "A"}, command_id)
        written += one.decide_all([incoming(b"ada", register, offset=7 + number)])
        for _ in range(10):
            written += one.due(LATEST_MS)
    assert not one.moving
    answered = {outcome.command_id for outcome in outcomes(written)}
    first = one._parking.first(b"ada")
    if first is None:
        assert answered >= {"c1", "c2"}
        return
    head = one._parked(b"ada", first)
    assert head is not None
    assert head.attempts > 0
    for number, command_id in enumerate(("c1", "c2")):
        assert command_id in answered or one._parking.holds(b"ada", 7 + number)


@given(
    key=st.sampled_from((b"ada", b"bob", b"\xff", b"", b"/", b"x" * 200, b" ")),
    offset=offsets,
    attempts=st.integers(0, 2),
    partition=st.integers(0, 3),
)
def test_a_parked_record_of_a_key_that_is_not_decided_here_is_left_alone(
    key: bytes, offset: int, attempts: int, partition: int
) -> None:
    parked = Parked(offset=offset, occurred_at_ms=1, value=REGISTER, attempts=attempts)
    store = MemoryState()
    value = json.dumps(msgspec.to_builtins(parked)).encode()
    store.parked.write({parked_key(key, offset): value}, 1)
    one = Decider(BY_NAME["user"], Topics("t", partitions=4), partition, store)
    one.ready()
    here = is_id(key.decode("latin-1")) and partition_of(key, 4) == partition
    assert (key in one._parking) == here
    if not here:
        assert not one.due(LATEST_MS)
        assert store.parked.get(parked_key(key, offset)) is not None


# Sizes.

LARGE: Final[list[tuple[bytes, bytes, list[tuple[str, bytes | None]]]]] = [
    (b"ada", b"x" * (9 * MIB), []),
    (b"ada", b"x" * (50 * MIB), []),
    (b"ada", b'{"type":"RegisterUser","command_id":"c1","x":"%b"}' % (b"x" * (60 * MIB)), []),
    (b"ada", b'{"type":"%b","command_id":"c1"}' % (b"x" * (9 * MIB)), []),
    (b"ada", b'{"type":"%b","command_id":"c1"}' % (b"\\u0001" * 80_000), []),
    (b"ada", REGISTER, [(headers.CORRELATION_ID, b"y" * (9 * MIB))]),
    (b"ada", REGISTER, [(headers.TRACEPARENT, b"y" * 3_000)]),
    (b"ada", REGISTER, [(headers.ANSWER_TO, b"o-1/" + b"\x01" * (9 * MIB))]),
    (b"ada", REGISTER, [("x", b"y" * (9 * MIB))]),
    (b"ada", REGISTER, [("x" * (9 * MIB), b"y")]),
    (b"ada", REGISTER, [("x", None)] * 500_000),
    (b"ada", REGISTER, [(headers.TRACEPARENT, b"")] * 5_000),
    (b"k" * (9 * MIB), REGISTER, []),
    (b"k" * (4 * MIB), b"x" * (4 * MIB), [("x", b"y" * (4 * MIB))]),
]


@pytest.mark.parametrize("number", range(len(LARGE)))
def test_what_is_too_large_is_answered_or_kept_in_what_fits(number: int) -> None:
    key, value, sent_marks = LARGE[number]
    written = decider("user").decide_all([incoming(key, value, [*sent_marks])])
    assert all(fits(record) for record in written)
    if key == b"ada" and value.startswith(b"{"):
        (outcome,) = outcomes(written)
        assert outcome.code in (Code.TOO_LARGE, Code.UNKNOWN_TYPE)
        assert len(outcome.message or "") <= limits.MAX_MESSAGE
    else:
        (letter,) = letters(written)
        said = dict(letter.headers)
        assert headers.ERROR_CUT in said
    assert sum(limits.record_bytes(r.key, r.value, r.headers) for r in written) < 2 * MIB


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_headers_are_refused_from_the_limit_on(more: int) -> None:
    room = limits.MAX_PASSED_ON_BYTES - limits.HEADER_OVERHEAD - len(headers.CORRELATION_ID)
    one = decider("user")
    mark = (headers.CORRELATION_ID, b"y" * (room + more))
    written = one.decide_all([incoming(b"ada", REGISTER, [mark])])
    assert outcomes(written)[0].accepted is (more <= 0)
    passed = mark[1] if more <= 0 else b"c1"
    assert all(dict(record.headers)[headers.CORRELATION_ID] == passed for record in written)


def test_a_refused_command_is_still_answered_where_its_sender_waits() -> None:
    large = (headers.TRACEPARENT, b"y" * 5_000)
    written = decider("user").decide_all(
        [incoming(b"ada", REGISTER, [large, (headers.REPLY_PARTITION, b"3")])]
    )
    (reply,) = [record for record in written if record.topic == TOPICS.replies]
    assert reply.partition == 3
    assert decode_outcome(reply.value or b"").code is Code.TOO_LARGE


@pytest.mark.parametrize("digits", [b"9" * 5_000, b"16", b"-1", b"\xb2", b"", None])
def test_a_reply_partition_that_is_none_is_no_reason_to_refuse(digits: bytes | None) -> None:
    record = incoming(b"ada", REGISTER, [(headers.REPLY_PARTITION, digits)])
    written = decider("user").decide_all([record])
    assert outcomes(written)[0].accepted
    assert TOPICS.replies not in [each.topic for each in written]


def test_a_saga_under_a_key_that_is_no_id_is_left_alone_when_it_is_due() -> None:
    store = MemoryState(appointment)
    due = events.saga("s", 1, wakes_at_ms=5).value or b""
    store.states.write({b"\xff": due, b"o-1": due}, 1)
    assert [record.key for record in decider(SAGA, store).due(6)] == [b"o-1"]


def test_a_record_whose_headers_cannot_be_read_is_refused_in_words() -> None:
    (record,) = decider("user").decide_all([incoming(b"ada", REGISTER, unreadable=True)])
    outcome = decode_outcome(record.value or b"")
    assert (outcome.code, outcome.field) == (Code.MALFORMED, "headers")
    (letter,) = decider("user").decide_all([incoming(b"ada", b"no json", unreadable=True)])
    assert letter.value == b"no json"
    assert dict(letter.headers)[headers.ERROR_CUT] == b"headers"


def test_an_event_that_no_topic_takes_is_a_refused_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VALUE_BYTES", 100)
    one = decider("user")
    (outcome,) = outcomes(one.decide_all([incoming(b"ada", REGISTER)]))
    assert (outcome.code, outcome.version) == (Code.TOO_LARGE, 0)
    assert not one._open.states


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (b"253402300799999", LATEST_MS),
        (b"253402300800000", 5),
        (b"9" * 5_000, 5),
        (b"-1", 5),
        (b"", 5),
        (None, 5),
    ],
)
def test_a_time_beyond_the_calendar_is_no_time(text: bytes | None, at_ms: int) -> None:
    assert occurred_at_ms([(headers.OCCURRED_AT_MS, text)], 5) == at_ms


@pytest.mark.parametrize("claimed", [1, LATEST_MS])
def test_a_senders_word_for_the_time_steers_nothing_that_follows_from_time(claimed: int) -> None:
    """Secrets of webhooks end by it, and timers of sagas."""
    secret = "whsec_" + b64encode(b"s" * 24).decode()
    hook = {"url": "https://a.example/", "event_types": ["order.*"], "secret": secret}
    start = {"saga": "create_order", "input": ORDER_INPUT}
    for name, command in (
        ("webhook", sent("CreateWebhook", hook)),
        (SAGA, sent("StartSaga", start)),
    ):
        record = incoming(b"w", command, name=name)
        late = msgspec.structs.replace(record, occurred_at_ms=claimed, sent_at_ms=5_000)
        records = decider(name).decide_all([late])
        (outcome,) = outcomes(records, name)
        assert (outcome.accepted, outcome.decided_at_ms) == (True, 5_000)
        history = [each for each in records if each.topic == TOPICS.history(name)]
        assert {decode_event(each.value or b"").occurred_at_ms for each in history} == {5_000}


# Dead letters.


SIZES: Final = st.sampled_from((0, 1, 2_000, 70_000, 4 * MIB, 9 * MIB))


@settings(deadline=None)
@example(sent_marks=[(headers.ERROR_CODE, b"9" * 2_000)], sizes=(0, 9 * MIB, 0), message="")
@given(
    sent_marks=marks,
    sizes=st.tuples(SIZES, SIZES, SIZES),
    message=st.text(max_size=20),
)
def test_a_letter_fits_and_says_what_is_cut(
    sent_marks: headers.Marks, sizes: tuple[int, int, int], message: str
) -> None:
    key, value, large = (b"x" * size for size in sizes)
    came = [*sent_marks, ("x", large)]
    failure = Failure("malformed", message * 500, "test", ValueError(message * 5_000))
    letter = letter_of(key, value, came, failure=failure, place=("t", 0, 1), at_ms=1)
    size = limits.record_bytes(letter.key, letter.value, letter.headers)
    assert size <= limits.MAX_RECORD_BYTES
    said = dict(letter.headers)
    cut = said.get(headers.ERROR_CUT, b"").decode().split(",")
    assert ("value" in cut) == (letter.value != value)
    assert ("key" in cut) == (letter.key != key)
    own = [mark for mark in came if not mark[0].startswith(headers.ERRORS)]
    assert ("headers" in cut) == (letter.headers[: len(own)] != own)
    if "value" in cut:
        assert said[headers.ERROR_VALUE_BYTES] == str(len(value)).encode()
        assert value.startswith(letter.value or b"")


def test_no_header_of_the_sender_counts_as_one_of_the_letter() -> None:
    spoofed: headers.Marks = [
        (headers.ERROR_HOLDS_KEY, b"true"),
        (headers.ERROR_TOPIC, b"another"),
        (headers.ERROR_CUT, b"value"),
        ("orderflow.errors.", b"x"),
        ("mine", b"x"),
    ]
    (letter,) = decider("user").decide_all([incoming(b"ada", b"no json", spoofed)])
    found = [name for name, _ in letter.headers]
    assert found[0] == "mine"
    assert len(set(found)) == len(found)
    said = dict(letter.headers)
    assert headers.ERROR_HOLDS_KEY not in said
    assert headers.ERROR_CUT not in said
    assert said[headers.ERROR_TOPIC] == b"t.user.commands"


# What raises has changed nothing.


class Failing:
    """The record factory, whose ``countdown``-th call raises."""

    def __init__(self, outbox: Any, countdown: int) -> None:
        self._outbox = outbox
        self.countdown = countdown

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.countdown -= 1
        if self.countdown == 0:
            raise ZeroDivisionError("a bug")
        return function(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._outbox, name)
        return lambda *arguments, **named: self.call(function, *arguments, **named)


def memory(one: Decider) -> Any:
    """What counts of a decider; not what it has only looked up."""
    pending = one._open
    kept = [pending.states, pending.outcomes, pending.parked]
    lanes = {key: list(lane) for key, lane in one._parking._lanes.items()}
    saga = [getattr(one, "_newest", {}), getattr(one, "_waiting", {})]
    return copy.deepcopy([kept, lanes, one._parking.moving, *saga])


WAITS: Final = [(headers.REPLY_PARTITION, b"1"), (headers.ANSWER_TO, b"o-9/step/0A")]
ORDER: Final = sent("StartSaga", {"saga": "create_order", "input": ORDER_INPUT})
DECIDED: Final = {
    "an event": ("user", [incoming(b"ada", REGISTER, WAITS)]),
    "a part": (
        "inventory",
        [
            incoming(b"A", sent("RegisterItem", {"description": "x", "opening_stock": 5}, "c0")),
            incoming(b"A", sent("ReserveStock", {"reservation_id": "r", "quantity": 1}), WAITS),
        ],
    ),
    "a rejection": ("order", [incoming(b"o-1", sent("ConfirmOrder", {}), WAITS)]),
    "a repetition": ("user", [incoming(b"ada", REGISTER), incoming(b"ada", REGISTER, WAITS)]),
    "another under the same id": (
        "user",
        [incoming(b"ada", REGISTER), incoming(b"ada", sent("RegisterUser", {"name": "B"}), WAITS)],
    ),
    "a saga": (SAGA, [incoming(b"o-1", ORDER, WAITS)]),
    "a saga that ends": (
        SAGA,
        [
            incoming(b"o-1", ORDER, WAITS),
            incoming(
                b"o-1",
                sent("CompensateSaga", {"by": "ann", "reason": "x"}, "c2"),
                WAITS,
            ),
        ],
    ),
}


@pytest.mark.parametrize("what", DECIDED)
def test_what_raises_while_records_are_built_has_changed_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (*before, last) = DECIDED[what]
    for number in range(1, 100):
        one = decider(name)
        one.decide_all(before)
        failing = Failing(one._outbox, number)
        monkeypatch.setattr(one, "_outbox", failing)
        monkeypatch.setattr(
            "processors.saga_decider.command_record",
            lambda *a, _f=failing, **n: _f.call(command_record, *a, **n),
        )
        was = memory(one)
        case = one._case(last)
        assert isinstance(case, Case)
        with contextlib.suppress(ZeroDivisionError):
            one._answer(case)
        assert memory(one) == was
        if failing.countdown > 0:
            break
    assert 1 < number < 99


@pytest.mark.parametrize("what", DECIDED)
def test_what_raises_once_is_a_letter_and_is_decided_when_it_is_retried(what: str) -> None:
    name, (*before, last) = DECIDED[what]
    one = decider(name)
    one.decide_all(before)
    one._outbox = Failing(one._outbox, 1)  # type: ignore[assignment]
    (letter,) = letters(one.decide_all([last]))
    assert dict(letter.headers)[headers.ERROR_CODE] == b"internal_error"
    assert letter.value == last.value


def test_a_start_with_an_answer_to_header_starts_the_saga_and_is_answered() -> None:
    one = decider(SAGA)
    written = one.decide_all([incoming(b"o-1", ORDER, WAITS, name=SAGA)])
    assert outcomes(written, SAGA)[0].accepted
    answers = [r for r in written if r.topic == TOPICS.commands(SAGA) and r.key == b"o-9"]
    (data,) = [json.loads(record.value or b"")["data"] for record in answers]
    assert data["events"][0]["type"] == "SagaStarted"


@pytest.mark.parametrize("event", [{"x": 1}, {"type": 1}, {"type": "A", "data": [1]}])
def test_an_answer_with_events_that_are_none_is_refused_and_holds_no_saga(event: object) -> None:
    one = decider(SAGA)
    one.decide_all([incoming(b"o-1", ORDER, name=SAGA)])
    token = f"{one._newest[b'o-1'][1].event.step}/0A"  # type: ignore[attr-defined]
    answer = sent(
        "RecordAnswer", {"token": token, "type": "X", "accepted": True, "events": [event]}, "c2"
    )
    (outcome,) = outcomes(one.decide_all([incoming(b"o-1", answer, name=SAGA)]), SAGA)
    assert (outcome.code, outcome.field) == (Code.INVALID_DATA, "events")


# The last line of defence, and memory.


def test_what_no_one_has_thought_of_puts_only_its_record_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = decider("user")
    read = one._edge.read

    def reading(key: bytes, *arguments: Any) -> Any:
        if key == b"ada":
            raise AssertionError("nobody has thought of this")
        return read(key, *arguments)

    monkeypatch.setattr(one._edge, "read", reading)
    written = one.decide_all([incoming(b"ada", REGISTER), incoming(b"bob", REGISTER)])
    (letter,) = letters(written)
    assert b"nobody has thought of this" in (dict(letter.headers)[headers.ERROR_STACKTRACE] or b"")
    assert [outcome.aggregate_id for outcome in outcomes(written)] == ["bob"]


def test_a_record_that_is_put_aside_is_a_letter_when_it_is_read_again() -> None:
    one = decider("user")
    one.put_aside(7, RuntimeError("no topic takes it"))
    written = one.decide_all([incoming(b"ada", REGISTER), incoming(b"bob", REGISTER, offset=8)])
    assert b"no topic takes it" in (dict(letters(written)[0].headers)[headers.ERROR_MESSAGE] or b"")
    assert [outcome.aggregate_id for outcome in outcomes(written)] == ["bob"]


def test_decoded_states_are_bounded_in_bytes() -> None:
    one = decider("user")
    state = events.user("ada", 1).value or b""
    padded = state[:-1] + b',"x":"' + b"y" * MIB + b'"}'
    for number in range(30):
        key = b"u-%d" % number
        one._store.states.write({key: padded}, 1)
        one.decide_all([incoming(key, sent("DeactivateUser", {"reason": "x"}), offset=number)])
        one.seal()
        one.committed(1, 1, None)
        assert one._recent_bytes <= 10 * MIB


TOO_LARGE: Final = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
AWAY: Final = KafkaException(KafkaError(KafkaError._TRANSPORT))


@given(st.integers(1, 2_000), st.data())
def test_a_batch_is_read_again_in_parts_until_one_record_is_to_blame(
    most: int, data: st.DataObject
) -> None:
    guilty = data.draw(st.sets(st.integers(0, 4_000), max_size=3))
    isolation, at, failures = Isolation(most), 0, 0
    aside: set[int] = set()
    while at < 4_001:
        batch = range(at, min(at + isolation.room, 4_001))
        if (guilty - aside) & set(batch):
            failures += 1
            if isolation.failed(len(batch), TOO_LARGE):
                assert len(batch) == 1
                aside.add(batch[0])
        else:
            isolation.succeeded()
            at = batch[-1] + 1
    assert aside == guilty
    assert failures <= 60 * max(1, len(guilty))


def test_a_broker_that_is_away_blames_no_record_and_is_asked_ever_more_rarely() -> None:
    isolation = Isolation(2_000)
    pauses = []
    for _ in range(20):
        assert not isolation.failed(1, AWAY)
        pauses.append(isolation.pause_s())
    assert isolation.room == 2_000
    assert pauses == sorted(pauses)
    assert pauses[0] == 0
    assert pauses[-1] == 5
    isolation.succeeded()
    assert isolation.pause_s() == 0


def test_what_is_due_is_not_blamed_on_the_command_beside_it() -> None:
    isolation = Isolation(2_000)
    assert not isolation.failed(1, TOO_LARGE, more=True)
    assert isolation.active
