"""Every topic that a role reads, times every kind of hostile record, on a running pipeline: others are
answered, views catch up, a letter stands; and all of it again after every role was killed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.embedded import ServersAddress
from runtime.settings import Settings
from schemas.topics import AGGREGATES, DOMAIN, SAGA
from tests.support.attacked import Attacked
from tests.support.hostile_kinds import KINDS, Hostile
from tests.support.processes import environment
from tests.support.up import Up

GOLDEN: Final = Path("tests/golden")


def _golden(folder: str, *fields: str) -> list[dict[str, Any]]:
    """Return the golden records of a folder that have these fields."""
    records = [json.loads(file.read_bytes()) for file in sorted((GOLDEN / folder).glob("*.json"))]
    return [record for record in records if set(fields) <= record.keys()]


def _kept(name: str) -> list[dict[str, Any]]:
    return [json.loads((GOLDEN / "records" / f"{name}.v1.json").read_bytes())]


TOPICS: Final[dict[str, list[dict[str, Any]]]] = {
    **{f"{aggregate}.commands": _golden(aggregate, "command_id") for aggregate in AGGREGATES},
    **{f"{aggregate}.events": _golden(aggregate, "state") for aggregate in AGGREGATES},
    **{
        f"{aggregate}.history": _golden(aggregate, "occurred_at_ms", "data")
        for aggregate in AGGREGATES
    },
    **{f"{aggregate}.outcomes": _kept("Outcome") for aggregate in AGGREGATES},
    **{f"{aggregate}.parked": _kept("Parked") for aggregate in AGGREGATES},
    "replies": _kept("Outcome"),
    "webhook-deliveries": _kept("Delivery"),
    "dead-letters": _golden("order", "command_id"),
    "audit": _kept("Action"),
}
"""Topic → the records around which hostile ones are made."""

VIEWED: Final = ("user", "inventory", "order", SAGA)

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]


class Batch(dict[str, list[Hostile]]):
    """Topic → records. There are hundreds, so a failing test names the file that lists them."""

    def __repr__(self) -> str:
        """Return how many records there are."""
        return f"<{sum(map(len, self.values()))} records on {len(self)} topics>"

    def listed(self) -> str:
        """Return a line for each record."""
        return "\n".join(f"{topic}: {one}" for topic, found in self.items() for one in found)


def _hostile(number: int, valid: dict[str, Any]) -> st.SearchStrategy[Hostile]:
    """Records of the kind with this number, under a key and a command id of its own."""
    own = {"command_id": f"h-{number}"} if "command_id" in valid else {}
    return list(KINDS.values())[number](f"h{number}".encode(), valid | own)


def batches() -> st.SearchStrategy[Batch]:
    """For each topic a record of every kind."""
    return st.fixed_dictionaries(
        {
            topic: st.tuples(
                *(
                    st.sampled_from(valid).flatmap(partial(_hostile, number))
                    for number in range(len(KINDS))
                )
            ).map(list)
            for topic, valid in TOPICS.items()
        }
    ).map(Batch)


@pytest.fixture(scope="module")
def attacked(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        with Up(env, folder / "up.log") as up:
            yield Attacked(up, env, Settings())


@settings(
    max_examples=1,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(batch=batches())
def test_no_kind_of_record_on_any_topic_stops_anybody(attacked: Attacked, batch: Batch) -> None:
    before = attacked.pids()
    attacked.up.log.with_name("batch.txt").write_text(batch.listed())
    sent = {
        topic: attacked.put(f"{attacked.settings.topic_prefix}.{topic}", records)
        for topic, records in batch.items()
    }
    attacked.goes_on()
    for aggregate in DOMAIN:
        attacked.handled(sent[f"{aggregate}.commands"], aggregate)
    assert attacked.pids() == before, "a role has ended"
    attacked.kill_roles()
    attacked.goes_on()


def test_what_no_view_can_use_stands_in_the_dead_letters(attacked: Attacked) -> None:
    garbage = [Hostile(f"g{number}".encode(), b"garbage", []) for number in range(4)]
    for aggregate in VIEWED:
        sent = attacked.put(attacked.topics.events(aggregate), garbage)
        attacked.goes_on()
        assert set(sent) <= attacked.letters()


@pytest.mark.parametrize(
    "arguments",
    [
        ("dead-letters", "list"),
        ("webhooks", "list"),
        ("sagas", "list"),
        ("topics", "diff"),
        ("history", "--correlation", "h-5"),
        ("query", "top-users"),
        ("query", "low-stock"),
    ],
    ids=" ".join,
)
def test_every_reading_command_answers_with_all_of_it_in_the_topics(
    attacked: Attacked, arguments: tuple[str, ...]
) -> None:
    attacked.run(*arguments)


@pytest.mark.skipif(shutil.which("kcat") is None, reason="only kcat can write such a header name")
def test_a_header_name_that_is_not_utf8_stops_nobody(attacked: Attacked) -> None:
    bootstrap = attacked.settings.kafka_bootstrap_servers or ""
    for topic in ("user.commands", "user.events", "order.history", "user.outcomes"):
        name = f"{attacked.settings.topic_prefix}.{topic}"
        command: list[str | bytes] = [
            "kcat",
            "-P",
            "-b",
            bootstrap,
            "-t",
            name,
            "-k",
            "ada",
            "-H",
            b"\xff=1",
        ]
        subprocess.run(command, input=b'{"type":"X","command_id":"k-1"}', check=True, timeout=60)
    attacked.goes_on()
    attacked.kill_roles()
    attacked.goes_on()
