"""Orders of one saga in the world of tests/support/world.py while something is down or refuses in passing."""

from __future__ import annotations

from typing import Final

from orderflow.memory_pipeline import SCOPE
from schemas.inventory import StockLevel
from schemas.records import decode_command
from tests.support.saga_stories import drain, order, settle, shop
from tests.support.world import TOPICS, World

TIMEOUT_MS: Final = 10_000
PAUSE_MS: Final = 500
LONGEST_MS: Final = 60_000
"""How long a step waits for answers, pauses after a refusal, and waits at most."""


def asked(world: World, aggregate: str) -> list[str]:
    """Ids of an aggregate's commands, as the sagas sent them, without the saga's own and its scope."""
    records = (r for r in world.log if r.topic == TOPICS.commands(aggregate))
    ids = (decode_command(record.value or b"").command_id for record in records)
    own = f"o-1.{SCOPE}."
    return [one.removeprefix(own) for one in ids if one.startswith(own)]


def settle_but(world: World, aggregate: str) -> None:
    """Does all that can be done while the processor of an aggregate is down."""
    while busy := [i for i in world.busy() if i[0] != "deliver" or i[1][0] != aggregate]:
        world.do(*busy[0])


def reserved(world: World) -> dict[str, int]:
    levels = world.states("inventory", StockLevel)
    return {sku: level.reserved for sku, level in levels.items() if level.reserved}


def failing(kind: str, token: str = "tok_approve") -> World:
    """An order of one A, while this command is refused in passing."""
    world = shop()
    world.refusing = {kind}
    world.place("o-1", **order(token, A=1))
    settle(world)
    return world


def unreleased() -> World:
    """A declined order whose stock cannot be released."""
    world = failing("ReleaseReservation", "tok_decline")
    drain(world)
    return world
