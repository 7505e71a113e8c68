"""A command that cannot be judged holds its aggregate, and nothing else, until an operator has settled it."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderflow.memory_pipeline import Held
from runtime.records import OutgoingRecord
from schemas import headers
from schemas.parking import Action, bytes_digest, decode_action, decode_notice, put_off_by
from schemas.records import Outcome, decode_command, decode_event, decode_outcome
from schemas.rejections import Code
from tests.support.commanding import command, parking_order
from tests.support.saga_stories import settle
from tests.support.world import TOPICS, World

Place = tuple[str, bytes]


def user_world(*broken: str) -> World:
    """A user `ada`; then the handlers of these commands have a bug."""
    world = World()
    world.send(command("ada", "RegisterUser", name="Ada"))
    settle(world)
    world.broken = set(broken)
    return world


def on(world: World, topic: str) -> list[OutgoingRecord]:
    return [record for record in world.log if record.topic == topic]


def outcomes(world: World, aggregate: str = "user") -> dict[str, Outcome]:
    found = [decode_outcome(r.value or b"") for r in on(world, TOPICS.outcomes(aggregate))]
    assert len({(o.aggregate_id, o.command_id) for o in found}) == len(found), "two outcomes of one"
    return {outcome.command_id: outcome for outcome in found}


def in_order(world: World) -> list[str]:
    """Ids of the tests' own commands in the order of their outcomes; those of orders are longer."""
    return [command_id for command_id in outcomes(world) if len(command_id) < 4]


def actions(world: World) -> list[Action]:
    return [decode_action(record.value or b"") for record in on(world, TOPICS.audit)]


def held(world: World) -> Held:
    (one,) = world.held()
    return one


def order(world: World, kind: str, **data: object) -> Outcome:
    """An operator orders this about the command that holds a key; returns the order's outcome."""
    one = held(world)
    sent = parking_order(one.aggregate, one.aggregate_id, kind, one.offset, **data)
    world.send(sent)
    settle(world)
    return outcomes(world, one.aggregate)[sent.command_id]


def deactivate(world: World, user: str = "ada", command_id: str = "c1") -> None:
    world.send(command(user, "DeactivateUser", command_id=command_id, reason="left"))
    settle(world)


def register(world: World, user: str, command_id: str) -> None:
    world.send(command(user, "RegisterUser", command_id=command_id, name="Ada"))
    settle(world)


def stuck() -> World:
    """`ada`'s deactivation is parked, and behind it her second registration."""
    world = user_world("DeactivateUser")
    deactivate(world)
    register(world, "ada", "c2")
    return world


def test_a_command_that_cannot_be_judged_is_a_dead_letter_and_has_no_outcome_yet() -> None:
    world = user_world("DeactivateUser")
    deactivate(world)
    assert "c1" not in outcomes(world)
    (letter,) = on(world, TOPICS.dead_letters)
    assert (letter.key, letter.value) == (b"ada", world.sent[-1].value)
    marks = dict(letter.headers)
    assert marks[headers.ERROR_CODE] == b"internal_error"
    assert marks[headers.ERROR_EXCEPTION] == b"builtins.ZeroDivisionError"
    assert b"ZeroDivisionError: a bug" in (marks[headers.ERROR_STACKTRACE] or b"")
    assert marks[headers.ERROR_OFFSET] == str(world.sent[-1].offset).encode()
    assert (marks[headers.ERROR_ATTEMPT], marks[headers.ERROR_HOLDS_KEY]) == (b"1", b"true")
    assert marks[headers.CORRELATION_ID] == b"c1"


def test_what_follows_for_the_same_aggregate_waits_and_other_aggregates_go_on() -> None:
    world = stuck()
    register(world, "bob", "c3")
    assert "c2" not in outcomes(world)
    assert outcomes(world)["c3"].accepted
    assert len(on(world, TOPICS.dead_letters)) == 1
    assert len(world.stores["user"].parked.data) == 2


def test_who_waits_is_told_at_once_that_there_is_no_outcome_yet() -> None:
    world = user_world("DeactivateUser")
    for kind, command_id in (("DeactivateUser", "c1"), ("RegisterUser", "c2")):
        data = {"reason": "left"} if kind == "DeactivateUser" else {"name": "Ada"}
        sent = command("ada", kind, command_id=command_id, **data)
        world.send(sent, (headers.REPLY_PARTITION, b"3"))
        settle(world)
    replies = on(world, TOPICS.replies)
    assert [put_off_by(r.key or b"") for r in replies] == [b"user/ada/c1", b"user/ada/c2"]
    first, second = (decode_notice(r.value or b"") for r in replies)
    assert first.offset == second.offset == held(world).offset
    assert "waits behind it" in second.message


def test_a_retry_judges_it_at_its_old_place_and_time_and_then_what_waits() -> None:
    world = stuck()
    at_ms = world.sent[-2].occurred_at_ms
    world.now_ms += 5_000
    world.broken.clear()
    assert order(world, "RetryParked", note="fixed").accepted
    found = outcomes(world)
    assert (found["c1"].accepted, found["c1"].version, found["c1"].decided_at_ms) == (
        True,
        2,
        at_ms,
    )
    assert (found["c2"].code, found["c2"].version) == (Code.USER_ALREADY_REGISTERED, 2)
    assert in_order(world) == ["c1", "c2"]
    assert world.history("user", "ada") == ["UserRegistered", "UserDeactivated"]
    assert not world.stores["user"].parked.data
    (done,) = actions(world)
    assert (done.action, done.by, done.note, done.settled) == ("retry", "ann", "fixed", True)
    assert (done.result, done.at_ms) == ("accepted", world.now_ms)


def test_a_retry_that_fails_again_says_so_and_nothing_moves() -> None:
    world = stuck()
    outcome = order(world, "RetryParked")
    assert (outcome.accepted, outcome.code) == (False, Code.INTERNAL_ERROR)
    assert held(world).command.attempts == 2
    assert not {"c1", "c2"} & outcomes(world).keys()
    attempts = [dict(r.headers)[headers.ERROR_ATTEMPT] for r in on(world, TOPICS.dead_letters)]
    assert attempts == [b"1", b"2"]
    (done,) = actions(world)
    assert (done.settled, done.result) == (False, "failed")


def test_it_stops_at_the_next_one_that_cannot_be_judged() -> None:
    world = stuck()
    deactivate(world, command_id="c3")
    register(world, "ada", "c4")
    world.broken = {"RegisterUser"}
    assert order(world, "RetryParked").accepted
    assert outcomes(world)["c1"].accepted
    assert not {"c2", "c3", "c4"} & outcomes(world).keys()
    assert held(world).command.value == world.sent[2].value
    world.broken.clear()
    order(world, "RetryParked")
    assert in_order(world) == ["c1", "c2", "c3", "c4"]
    assert outcomes(world)["c3"].code is Code.USER_ALREADY_DEACTIVATED


def test_a_discarded_command_is_rejected_and_the_rest_goes_on() -> None:
    world = stuck()
    assert order(world, "DiscardParked", note="a test").accepted
    found = outcomes(world)
    assert (found["c1"].code, found["c1"].message) == (Code.DISCARDED, "discarded by ann: a test")
    assert found["c2"].code is Code.USER_ALREADY_REGISTERED
    assert world.history("user", "ada") == ["UserRegistered"]
    assert actions(world)[0].result == "discarded"


EDITED = '{"type":"DeactivateUser","command_id":"c1","data":{"reason":"left for good"}}'


def test_an_edited_command_is_judged_in_the_old_ones_place_and_answers_its_sender() -> None:
    world = stuck()
    before = held(world).command.value
    world.broken.clear()
    assert order(world, "EditParked", record=EDITED).accepted
    (event,) = [r for r in on(world, TOPICS.history("user")) if b"Deactivated" in (r.value or b"")]
    assert decode_event(event.value or b"").id == "c1:0"
    (done,) = actions(world)
    assert (done.before, done.after) == (bytes_digest(before), bytes_digest(EDITED.encode()))
    letters = on(world, TOPICS.dead_letters)
    world.repeat(1)  # the sender asks again, with the bytes that it knows
    settle(world)
    assert on(world, TOPICS.dead_letters) == letters, "to its sender it is the same command"


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ("no json", Code.MALFORMED),
        (EDITED.replace("c1", "c9"), Code.INVALID_DATA),
        (EDITED.replace("reason", "raison"), Code.INVALID_DATA),
        (EDITED.replace("DeactivateUser", "Nothing"), Code.UNKNOWN_TYPE),
        (
            '{"type":"RetryParked","command_id":"c1","data":{"by":"a","offset":1}}',
            Code.INVALID_DATA,
        ),
    ],
)
def test_an_edit_that_cannot_be_meant_is_refused_and_changes_nothing(
    record: str, code: Code
) -> None:
    world = stuck()
    before = dict(world.stores["user"].parked.data)
    world.broken.clear()
    outcome = order(world, "EditParked", record=record)
    assert (outcome.accepted, outcome.code) == (False, code)
    assert world.stores["user"].parked.data == before
    assert not actions(world)


@pytest.mark.parametrize("kind", ["RetryParked", "DiscardParked"])
def test_an_order_about_a_record_that_holds_nothing_is_refused(kind: str) -> None:
    world = stuck()
    for key, offset in (("ada", held(world).offset + 1), ("bob", held(world).offset)):
        sent = parking_order("user", key, kind, offset)
        world.send(sent)
        settle(world)
        assert outcomes(world)[sent.command_id].code is Code.NOT_PARKED
    assert len(world.stores["user"].parked.data) == 2


def test_an_order_that_comes_twice_is_carried_out_once() -> None:
    world = stuck()
    order(world, "RetryParked")
    world.repeat(len(world.sent) - 1)
    settle(world)
    assert held(world).command.attempts == 2
    assert len(actions(world)) == 1


def test_what_the_edge_refuses_and_what_has_its_outcome_need_not_wait() -> None:
    world = stuck()
    world.send(command("ada", "DeactivateUser", command_id="c5", raison="left"))
    world.repeat(0)
    settle(world)
    assert outcomes(world)["c5"].code is Code.INVALID_DATA
    assert len(world.stores["user"].parked.data) == 2


def test_the_same_command_again_waits_too_and_gets_the_first_ones_outcome() -> None:
    world = stuck()
    world.repeat(1)
    settle(world)
    assert len(world.stores["user"].parked.data) == 3
    world.broken.clear()
    order(world, "RetryParked")
    assert world.history("user", "ada") == ["UserRegistered", "UserDeactivated"]
    assert not world.stores["user"].parked.data


def test_a_record_that_is_read_again_is_not_parked_twice() -> None:
    world = stuck()
    for place, record in ((("user", b"ada"), one) for one in world.sent[1:3]):
        world.queues[place].append(record)
    settle(world)
    assert len(world.stores["user"].parked.data) == 2
    assert len(on(world, TOPICS.dead_letters)) == 1


def test_who_takes_over_knows_what_is_parked() -> None:
    world = stuck()
    world.crash("user")
    register(world, "ada", "c3")
    assert "c3" not in outcomes(world)
    world.broken.clear()
    order(world, "RetryParked")
    assert in_order(world) == ["c1", "c2", "c3"]


def test_who_is_killed_while_it_lets_through_what_waits_leaves_that_to_the_next() -> None:
    world = stuck()
    world.broken.clear()
    one = held(world)
    world.send(parking_order("user", "ada", "RetryParked", one.offset))
    decider = world.deciders["user"]
    # The transaction with the retry stands; what waits behind it would have come with the next one.
    world.route([*decider.decide(world.queues["user", b"ada"].popleft()), *decider.seal()])
    decider.committed(1, 1, 1)
    assert "c2" not in outcomes(world)
    world.crash("user")
    register(world, "ada", "c3")
    assert list(outcomes(world))[-2:] == ["c2", "c3"]


def test_a_saga_whose_bug_is_its_own_goes_on_when_it_is_retried() -> None:
    world = World()
    world.broken = {"StartSaga"}
    world.send(command("o-1", "StartSaga", saga="create_order", input={}))
    settle(world)
    assert held(world).aggregate == "saga"
    world.broken.clear()
    order(world, "RetryParked")
    assert not world.held()


# Whatever fails and whatever is ordered: order kept, one outcome each, nothing lost.

KINDS = ("RegisterUser", "DeactivateUser")
moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(("ada", "bob", "eve")), st.sampled_from(KINDS)),
        st.tuples(st.just("poison"), st.sampled_from(KINDS), st.none()),
        st.tuples(st.just("mend"), st.none(), st.none()),
        st.tuples(st.just("crash"), st.none(), st.none()),
        st.tuples(st.just("abort"), st.sampled_from(("ada", "bob", "eve")), st.none()),
        st.tuples(
            st.sampled_from(("RetryParked", "DiscardParked", "EditParked")),
            st.integers(0, 5),
            st.none(),
        ),
    ),
    max_size=40,
)


def do(world: World, what: str, which: object, kind: str | None, number: int) -> None:
    match what:
        case "send":
            data = {"name": "Ada"} if kind == "RegisterUser" else {"reason": "left"}
            sent = command(str(which), str(kind), command_id=f"c{number}", **data)
            world.send(sent)
        case "poison":
            world.broken.add(str(which))
        case "mend":
            world.broken.clear()
        case "crash":
            world.crash("user")
        case "abort":
            place = "user", str(which).encode()
            if world.queues[place]:
                world.abort(place)
        case _:
            held_now = world.held()
            if held_now:
                one = held_now[int(str(which)) % len(held_now)]
                more = {"record": one.command.value.decode()} if what == "EditParked" else {}
                world.send(parking_order("user", one.aggregate_id, what, one.offset, **more))


@settings(max_examples=300, deadline=None)
@given(moves, st.lists(st.booleans(), min_size=40, max_size=40))
def test_whatever_fails_each_command_has_one_outcome_in_the_order_of_arrival(
    done: list[tuple[str, object, str | None]], pauses: list[bool]
) -> None:
    world = World()
    for number, ((what, which, kind), pause) in enumerate(zip(done, pauses, strict=False)):
        do(world, what, which, kind, number)
        if pause:
            settle(world)
    settle(world)
    world.broken.clear()
    while world.held():
        world.settle_held()
        settle(world)
    assert not world.stores["user"].parked.data
    asked: dict[str, list[str]] = defaultdict(list)
    for record in world.sent:
        key = (record.key or b"").decode()
        sent = decode_command(record.value or b"")
        if sent.type in KINDS:  # orders have outcomes, too, but no place in the order
            asked[key].append(sent.command_id)
    answered: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes(world).values():
        if len(outcome.command_id) < 4:
            answered[outcome.aggregate_id].append(outcome.command_id)
    assert answered == asked
    for user in asked:
        versions = [
            decode_event(r.value or b"").version
            for r in on(world, TOPICS.history("user"))
            if r.key == user.encode()
        ]
        assert versions == list(range(1, len(versions) + 1))
