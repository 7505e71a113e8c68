"""Orders that end in every way there is, in the world of tests/support/world.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from schemas.records import Outcome, decode_outcome
from schemas.saga import SagaState
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.world import TOPICS, World

PATIENCE_MS: Final = 3_600_000
STEPS: Final = 20_000


def shop(stock: int = 10, world: World | None = None) -> World:
    """A user `ada` and SKUs A, B and C with so many pieces each; in this world, or a new one."""
    world = World() if world is None else world
    world.send(command("ada", "RegisterUser", name="Ada"))
    for sku in ("A", "B", "C"):
        world.send(command(sku, "RegisterItem", description="item", opening_stock=stock))
    drain(world)
    return world


def order(token: str = "tok_approve", user: str = "ada", **pieces: int) -> dict[str, Any]:
    """Arguments of ``World.place``; without SKUs, one of A and two of B."""
    lines = [
        {"sku": sku, "quantity": count, "unit_price": 100}
        for sku, count in (pieces or {"A": 1, "B": 2}).items()
    ]
    return {"user_id": user, "currency": "GBP", "payment_token": token, "lines": lines}


def settle(world: World) -> None:
    """Does everything that can be done without waiting; a gateway that is down is not asked again."""
    for _ in range(STEPS):
        busy = [item for item in world.busy() if not _is_hopeless(world, item)]
        if not busy:
            return
        world.do(*busy[0])
    raise AssertionError("it does not come to an end")


def drain(world: World) -> None:
    """Goes on until nothing is to be done, however much time that takes; loses nothing."""
    for _ in range(STEPS):
        settle(world)
        # A saga whose own command waits for an operator does not wake.
        held = {one.aggregate_id for one in world.held() if one.aggregate == SAGA}
        sagas = world.states(SAGA, SagaState)
        if all(saga.wakes_at_ms is None for key, saga in sagas.items() if key not in held):
            return
        world.tick(PATIENCE_MS)
    raise AssertionError("it does not come to an end")


def _is_hopeless(world: World, item: tuple[str, Any]) -> bool:
    what, key = item
    if what != "ask" or world.gateway.ledger.mended:
        return False
    queue = world.asked[key]
    token = world.gateway.ledger.token_of(queue[0].task.key)
    down = len(queue) == 1 and getattr(queue[0].task, "token", "") == "tok_down"
    return down or (token == "tok_refund_down" and not hasattr(queue[0].task, "token"))


def placed() -> World:
    """An order that is placed."""
    world = shop()
    world.place("o-1", **order())
    drain(world)
    return world


def declined() -> World:
    """One whose payment is declined."""
    world = shop()
    world.place("o-1", **order("tok_decline"))
    drain(world)
    return world


def timed_out() -> World:
    """One whose payment is never answered."""
    world = shop()
    world.place("o-1", **order("tok_down"))
    drain(world)
    return world


def stuck() -> World:
    """One that cannot be refunded: there is an order of its id already, and refunds are down."""
    world = shop()
    line = {"sku": "C", "quantity": 1, "unit_price": 1}
    world.send(command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=[line]))
    settle(world)
    world.place("o-1", **order("tok_refund_down"))
    drain(world)
    return world


def retried() -> World:
    """The same, tried again by an operator once refunds work."""
    world = stuck()
    world.gateway.mend()
    world.send(command("o-1", "RetrySaga", by="ann"))
    drain(world)
    return world


def resolved() -> World:
    """The same, put right by hand."""
    world = stuck()
    world.send(command("o-1", "ResolveSaga", by="ann", note="refunded by hand"))
    drain(world)
    return world


def taken_back() -> World:
    """A placed order that an operator has undone."""
    world = placed()
    world.send(command("o-1", "CompensateSaga", by="ann", reason="customer called"))
    drain(world)
    return world


def unknown_user() -> World:
    """One of nobody."""
    world = shop()
    world.place("o-1", **order(user="nobody"))
    drain(world)
    return world


STORIES: Final[tuple[Callable[[], World], ...]] = (
    placed,
    declined,
    timed_out,
    stuck,
    retried,
    resolved,
    taken_back,
    unknown_user,
)


def last_outcome(world: World) -> Outcome:
    """Of the newest command that a saga got."""
    outcomes = [r for r in world.log if r.topic == TOPICS.outcomes(SAGA)]
    return decode_outcome(outcomes[-1].value or b"")
