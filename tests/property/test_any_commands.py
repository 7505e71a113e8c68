"""Whatever commands anybody sends, in whatever order: each is answered, and nobody's work ends on them."""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
from hypothesis import event, given, settings

from orderflow.memory_pipeline import MemoryPipeline
from runtime.client import OutgoingCommand
from runtime.records import OutgoingRecord
from schemas import headers
from schemas.ids import outcome_key
from schemas.records import decode_outcome
from schemas.saga import SagaState
from schemas.topics import SAGA
from tests.support.any_commands import commands, waiting_sagas
from tests.support.saga_laws import check_log, cut_of, drifts_of_states
from tests.support.saga_stories import STEPS, order, settle, shop
from tests.support.world import TOPICS, World

REUSED: Final = b"command_id_reused"

Sent = tuple[OutgoingCommand, tuple[tuple[str, bytes], ...], int]
DAY_MS = 86_400_000


class Crossroads(World):
    """A world in which a command id may be taken already, and nothing else is put aside."""

    def route(self, records: list[OutgoingRecord]) -> None:
        for record in records:
            if record.topic == TOPICS.dead_letters:
                assert dict(record.headers)[headers.ERROR_CODE] == REUSED, record
        MemoryPipeline.route(self, records)


def wait_for_sagas(world: World) -> None:
    """Go on for as long as any saga wakes by itself."""
    for _ in range(STEPS):
        settle(world)
        if all(saga.wakes_at_ms is None for saga in world.states(SAGA, SagaState).values()):
            return
        world.tick(DAY_MS)
    raise AssertionError("it does not come to an end")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(commands(), waiting_sagas(), st.integers(0, 30)), min_size=10, max_size=60)
)
def test_each_is_answered_and_no_handler_ends_on_it(sent: list[Sent]) -> None:
    world = shop(world=Crossroads())
    for number, coordination in enumerate(("choreography", "orchestration"), 1):
        world.place(f"o-{number}", **order(), coordination=coordination)
    for one, marks, turns in sent:
        for _ in range(turns):
            if busy := world.busy():
                world.do(*busy[turns % len(busy)])
        world.send(one, *marks)
    wait_for_sagas(world)
    assert not world.held()
    check_log(world)
    assert drifts_of_states(world, cut_of(world)) == []
    outcomes = {
        (r.topic, r.key): decode_outcome(r.value or b"")
        for r in world.log
        if r.topic.endswith(".outcomes")
    }
    for one, _, _ in sent:
        key = outcome_key(one.aggregate_id.encode(), one.command_id.encode())
        outcome = outcomes[TOPICS.outcomes(one.aggregate), key]
        event(f"{one.type} {outcome.status}")
