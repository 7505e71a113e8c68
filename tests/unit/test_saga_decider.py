"""What the sagas' decider adds to their commands, and whom it tells of a saga's end."""

from __future__ import annotations

from orderflow.placing import order_command
from schemas import headers
from schemas.ids import end_key
from schemas.rejections import Code
from tests.support.commanding import command
from tests.support.saga_faults import TIMEOUT_MS
from tests.support.saga_stories import drain, last_outcome, order, settle, shop
from tests.support.world import TOPICS, World

WAITING = (headers.REPLY_PARTITION, b"3")
TRACE = (headers.TRACEPARENT, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


def told(world: World) -> list[int | None]:
    """Reply partitions that were told how o-1 ended."""
    key = end_key("o-1")
    return [r.partition for r in world.log if r.topic == TOPICS.replies and r.key == key]


def test_who_waits_is_told_of_the_end_once_and_who_asks_later_at_once() -> None:
    world = shop()
    world.send(order_command("o-1", **order()), WAITING)
    world.send(order_command("o-1", **order()), WAITING)  # asked again, while it runs
    drain(world)
    assert told(world) == [3]
    world.send(order_command("o-1", **order()), WAITING)
    drain(world)
    assert told(world) == [3, 3]


def test_who_was_refused_is_not_told_of_the_end_of_another_order() -> None:
    world = shop()
    early = command("o-1", "StartSaga", command_id="mine", saga="no such", input=order())
    world.send(early, WAITING)
    drain(world)
    assert last_outcome(world).code is Code.UNKNOWN_SAGA
    world.place("o-1", **order())
    drain(world)
    world.send(early, WAITING)
    another = command("o-1", "StartSaga", saga="create_order", input=order(C=1))
    world.send(another, WAITING)
    drain(world)
    assert last_outcome(world).code is Code.SAGA_ALREADY_EXISTS
    assert not told(world)


def test_every_command_of_a_saga_carries_the_trace_of_what_it_follows_from() -> None:
    world = shop()
    world.send(order_command("o-1", **order()), TRACE)
    drain(world)
    aggregates = ("user", "inventory", "payment", "order")
    topics = {TOPICS.commands(aggregate) for aggregate in aggregates}
    sent = [r for r in world.log if r.topic in topics]
    assert {r.topic for r in sent} == topics
    assert all(TRACE in r.headers for r in sent)


def test_of_a_sagas_appointments_only_the_newest_stands() -> None:
    world = shop()
    world.place("o-1", **order("tok_down"))
    settle(world)
    assert world.saga("o-1").timer == 3  # one for each step that has begun
    world.tick(TIMEOUT_MS)
    settle(world)
    wakes = [r for r in world.sent if b"WakeSaga" in (r.value or b"")]
    assert len(wakes) == 1
