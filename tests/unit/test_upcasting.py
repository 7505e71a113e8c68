"""What an older release wrote is read as if it had been written today; what a newer one wrote is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.asking import Unreadable as NoPayment
from payments.asking import read as read_payment
from processors.decider import Decider
from processors.edge import Edge, Request
from processors.reactor import reactions
from processors.saga_decider import UNREAD, appointment
from processors.state_store import PartitionState
from readmodels.records import Unreadable, read
from readmodels.views import VIEWS, View
from runtime.records import IncomingRecord
from sagas import AGGREGATES
from sagas.choreography import EVENTS as FOLLOWED
from schemas import headers
from schemas.parking import decode_action
from schemas.records import decode_event, decode_outcome, encode
from schemas.rejections import Code
from schemas.topics import Topics
from schemas.upcasting import Reader, StateReader, UnsupportedVersion, upcast, version_of
from tests.support import events
from tests.support.evolving import PARCEL, Depot, Label, ParcelSent, SendParcel

TOPICS = Topics("t", partitions=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionState]:
    found = PartitionState(tmp_path, "events-id", "outcomes-id", "parked-id")
    yield found
    found.close()


def command(data: dict[str, Any], command_id: str = "c", **more: Any) -> bytes:
    return encode({"type": "SendParcel", "command_id": command_id, "data": data, **more})


def request(value: bytes) -> Request:
    found = Edge(PARCEL, 1).read(b"d", value, 0)
    assert isinstance(found, Request)
    return found


def incoming(value: bytes, topic: str = "t.parcel.commands") -> IncomingRecord:
    return IncomingRecord(topic, 0, 7, 1_000, b"d", value, [])


def stored(state: object, state_version: int = 1) -> bytes:
    return encode(
        {"type": "X", "id": "c:0", "version": 4, "occurred_at_ms": 1, "data": {}}
        | ({"state_version": state_version} if state_version != 1 else {})
        | {"state": state}
    )


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (1, {"kilograms": 2}),
        (2, {"carrier": "unknown", "kilograms": 2}),
        (3, {"carrier": "unknown", "grams": 2_000}),
    ],
)
def test_each_version_of_an_event_is_read_as_the_present_one(version: int, data: object) -> None:
    assert Reader(ParcelSent).read(encode(data), version) == ParcelSent("unknown", 2_000)


@given(kilograms=st.integers(0, 10**6), carrier=st.text())
def test_the_chain_may_be_entered_at_any_version_with_the_same_result(
    kilograms: int, carrier: str
) -> None:
    first = upcast(ParcelSent, {"kilograms": kilograms}, 1)
    second = upcast(ParcelSent, {"carrier": "unknown", "kilograms": kilograms}, 2)
    assert first == second == upcast(ParcelSent, dict(second), 3)
    kept = upcast(ParcelSent, {"carrier": carrier, "kilograms": kilograms}, 2)
    assert kept == {"carrier": carrier, "grams": kilograms * 1_000}


@pytest.mark.parametrize("version", [-1, 0, 4])
def test_a_version_that_is_not_known_is_refused_by_name(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"version {version} of ParcelSent.*1 to 3 are"):
        Reader(ParcelSent).read(b'{"carrier":"x","grams":1}', version)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"carrier":"x"}', "not ParcelSent of version 2: KeyError"),
        (b'{"carrier":"x","kilograms":"2"}', "Expected `int`"),
        (b"[]", "Expected `object`"),
    ],
)
def test_what_is_not_of_its_version_is_a_validation_error(data: bytes, says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        Reader(ParcelSent).read(data, 2)


def test_a_type_that_never_changed_is_of_version_1() -> None:
    types = [kind for a in AGGREGATES for kind in (*a.commands, *a.events, a.root_type)]
    unchanged = [kind for kind in types if not getattr(kind, "UPCASTERS", ())]
    assert {version_of(kind) for kind in unchanged} == {1}
    assert [version_of(kind) for kind in (ParcelSent, Depot, Label, SendParcel)] == [3, 2, 2, 2]


def test_an_old_state_is_read_even_where_it_looks_like_the_present_one() -> None:
    class Level(msgspec.Struct, frozen=True):
        UPCASTERS = (lambda data: {"pieces": data["pieces"] * 10},)  # dozens of old, so to speak

        pieces: int

    level = StateReader(Level)
    assert level.read(stored({"pieces": 3})) == (4, Level(30))
    assert level.read(stored({"pieces": 3}, 2)) == (4, Level(3))


def test_a_decision_stands_on_old_states_of_root_and_part_and_writes_present_versions(
    store: PartitionState,
) -> None:
    old = {b"d": stored({"kilograms": 3, "parcels": 1}), b"d/none": stored({"text": "mind"})}
    store.states.write(old, 5)
    seen = []

    def spying(loaded: Any, given: Any) -> Any:
        seen.append(loaded.parts["none"])
        return PARCEL.decide(loaded, given)

    decider = Decider(_deciding(spying), TOPICS, 0, store)
    records = decider.decide(incoming(command({"grams": 500}, schema_version=2)))
    full, bare = (decode_event(record.value or b"") for record in records[:2])
    assert seen == [Label("mind", "white")]
    assert (full.version, full.schema_version, full.state_version) == (5, 3, 2)
    assert json.loads(bytes(full.state)) == {"grams": 3_500, "parcels": 2}
    assert (bare.schema_version, bare.state_version) == (3, 1)
    assert decode_outcome(records[2].value or b"").accepted


@pytest.mark.parametrize("key", [b"d", b"d/none"])
def test_a_state_of_a_newer_release_parks_its_commands_until_that_release_takes_over(
    store: PartitionState, key: bytes
) -> None:
    store.states.write({key: stored({"tons": 3}, 3)}, 5)
    decider = Decider(PARCEL, TOPICS, 0, store)
    decider.ready()
    sent = command({"grams": 500}, schema_version=2)
    letter, parked = decider.decide(incoming(sent))
    marks = dict(letter.headers)
    assert marks[headers.ERROR_CODE] == b"unsupported_schema_version"
    assert b"version 3 of" in (marks[headers.ERROR_MESSAGE] or b"")
    decider.seal()
    decider.committed(None, None, 6)

    decider.ready()  # as after a restart of the same release: nothing new is written
    assert decider.due(7) == []

    store.states.write({key: None}, 6)
    newer = Decider(PARCEL, TOPICS, 0, store)  # which can read the state
    newer.ready()
    records = newer.due(7)
    assert [r.value for r in records if r.key == parked.key] == [None]
    (outcome,) = [r for r in records if r.topic == TOPICS.outcomes("parcel")]
    assert decode_outcome(outcome.value or b"").accepted
    (action,) = [decode_action(r.value or b"") for r in records if r.topic == TOPICS.audit]
    assert (action.action, action.settled, action.at_ms) == ("retry", True, 7)


def test_an_old_command_means_what_its_upcaster_says() -> None:
    assert request(command({"kilograms": 2})).command == SendParcel(grams=2_000)
    newest = request(command({"grams": 2_000}, schema_version=2))
    assert newest.command == SendParcel(grams=2_000)


def test_an_old_command_sent_again_after_an_upgrade_is_still_the_same_command() -> None:
    class Before(PARCEL.commands[0].UPCASTERS[0].model):  # type: ignore[misc]
        """The release in which version 1 was the present one."""

    Before.__name__ = "SendParcel"
    then = Edge(_taking(Before), 1).read(b"d", command({"kilograms": 2}), 0)
    assert isinstance(then, Request)
    assert request(command({"label": "none", "kilograms": 2})).digest == then.digest
    assert request(command({"kilograms": 3})).digest != then.digest


def test_a_new_optional_field_makes_no_other_command_of_one_that_is_sent_again() -> None:
    class More(SendParcel):
        note: str | None = None

    More.__name__ = "SendParcel"
    again = Edge(_taking(More), 1).read(b"d", command({"grams": 1}, schema_version=2), 0)
    assert isinstance(again, Request)
    assert again.digest == request(command({"grams": 1}, schema_version=2)).digest


@pytest.mark.parametrize(
    ("version", "data", "code", "field"),
    [
        (1, {"grams": 2}, Code.INVALID_DATA, "kilograms"),
        (1, {"kilograms": "2"}, Code.INVALID_DATA, "kilograms"),
        (2, {"kilograms": 2}, Code.INVALID_DATA, "grams"),
        (3, {"grams": 2}, Code.UNSUPPORTED_SCHEMA_VERSION, "schema_version"),
        (0, {"grams": 2}, Code.UNSUPPORTED_SCHEMA_VERSION, "schema_version"),
    ],
)
def test_a_command_is_judged_by_the_version_that_it_says_it_is(
    version: int, data: dict[str, Any], code: Code, field: str
) -> None:
    rejection = request(command(data, schema_version=version)).rejection
    assert rejection is not None
    assert (rejection.code, rejection.field) == (code, field)


def test_a_view_gets_an_old_state_as_the_present_one() -> None:
    states: Reader[Any] = Reader(Depot)
    value = stored({"kilograms": 3, "parcels": 1})
    change = read(b"d", value, (), states, lambda _id, _version, state: json.loads(state))
    assert change is not None
    assert change.row == {"grams": 3_000, "parcels": 1}
    with pytest.raises(Unreadable) as caught:
        read(b"d", stored({}), (), states, lambda *_: None)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_no_view_guesses_at_a_newer_state(view: View) -> None:
    with pytest.raises(Unreadable) as caught:
        read(b"d", stored({}, version_of(view.states.type) + 1), (), view.states, view.project)
    assert caught.value.code == "unsupported_schema_version"


def newer(kind: str) -> bytes:
    return encode(
        {"type": kind, "id": "c:0", "version": 1, "occurred_at_ms": 1, "schema_version": 2}
        | {"data": {}}
    )


@pytest.mark.parametrize("kind", ["PaymentRequested", "PaymentRefundRequested"])
def test_payments_set_a_newer_event_aside_under_its_code(kind: str) -> None:
    with pytest.raises(NoPayment) as caught:
        read_payment(incoming(newer(kind)))
    assert caught.value.code == "unsupported_schema_version"


@pytest.mark.parametrize("kind", FOLLOWED, ids=lambda kind: kind.__name__)
def test_the_reactor_refuses_a_newer_event(kind: type) -> None:
    with pytest.raises(UnsupportedVersion):
        reactions(incoming(newer(kind.__name__)), TOPICS)


def test_a_newer_saga_has_no_appointment_that_this_release_could_keep() -> None:
    saga = events.saga("s", 1, wakes_at_ms=5).value or b""
    assert appointment(saga) == b"[5,0]"
    assert appointment(saga.replace(b'"state":', b'"state_version":2,"state":')) == UNREAD


def _deciding(decide: Any) -> Any:
    return replace(PARCEL, decide=decide)


def _taking(model: Any) -> Any:
    return replace(PARCEL, commands=(model,))
