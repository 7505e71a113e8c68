"""The commands that the pipeline itself sends, as a processor of the release before reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from commands.aggregate import Command
from sagas import AGGREGATES
from sagas.choreography import PARTS
from schemas.records import decode_command
from schemas.topics import SAGA
from tests.support.commanding import command
from tests.support.first_release import check_first_release_takes
from tests.support.saga_stories import STORIES, drain, order, shop
from tests.support.world import TOPICS, World

MODELS: Final[dict[tuple[str, str], type[Command]]] = {
    (TOPICS.commands(aggregate.name), model.__name__): model
    for aggregate in AGGREGATES
    for model in aggregate.commands
}


def choreographed() -> World:
    """Two orders whose services react to each other, of which one goes back."""
    world = shop()
    world.place("o-1", **order(), coordination="choreography")
    world.place("o-2", **order("tok_decline"), coordination="choreography")
    drain(world)
    return world


def of_older_releases() -> World:
    """Sagas that have no scope, and parts that nobody signed; one part is refused."""
    world = shop()
    world.deciders[SAGA]._scope = ""  # as the first release, which knew none
    world.send(command("o-1:user", "StartSaga", saga=PARTS[0].saga, input=order(C=1)))
    world.place("o-1", **order(), coordination="choreography")
    world.place("o-2", **order("tok_decline"), coordination="choreography")
    world.place("o-3", **order(), coordination="orchestration")
    drain(world)
    return world


@pytest.mark.parametrize("story", [*STORIES, choreographed, of_older_releases])
def test_they_have_no_field_that_its_reader_may_not_know_yet(story: Callable[[], World]) -> None:
    """Both releases run during an upgrade, and a command with an unknown field is refused."""
    seen = 0
    for record in story().log:
        if record.topic.endswith(".commands"):
            sent = decode_command(record.value or b"")
            data: dict[str, Any] = msgspec.json.decode(sent.data)
            fields = MODELS[record.topic, sent.type].model_fields
            defaults = {name: fields[name].get_default() for name in data}
            same = [name for name, value in data.items() if value == defaults[name]]
            assert not same, f"{sent.type}: {same}"
            seen += 1
    assert seen


def test_of_what_the_first_release_began_its_processors_take_every_command() -> None:
    seen: set[str] = set()
    for record in of_older_releases().log:
        _, aggregate, kind = record.topic.rsplit(".", 2)
        sent = decode_command(record.value or b"") if kind == "commands" else None
        if (
            sent is not None and sent.type != "CapturePayment"
        ):  # of the outbox: see test_payments.py
            check_first_release_takes(aggregate, sent)
            seen.add(sent.type)
    assert seen >= {"StartSaga", "RecordAnswer", "CompensateSaga", "ReserveStock", "CreateOrder"}
