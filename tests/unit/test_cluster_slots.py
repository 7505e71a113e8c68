"""Which node of a cluster gets which command, and what its nodes' answers come to."""

from __future__ import annotations

from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)

from readmodels.keys import BUCKETS, Keys
from readmodels.views import VIEWS
from runtime.redis import is_cluster
from runtime.redis.connecting import Address, ClusterUrl
from runtime.redis.line import Command
from runtime.redis.slots import (
    ClusterUnready,
    Plan,
    Table,
    asked_elsewhere,
    own_part,
    refuse_passing,
    slot_of,
)
from runtime.settings import Settings

A, B = ("a", 1), ("b", 2)
TABLE = Table.of(
    [[0, 8_000, ["a", 1, "id-a"]], [8_001, 16_383, [b"b", 2, b"id-b", []], ["c", 3, "id-c"]]],
    ("seed", 9),
)
ON_A, ON_B = "{x3}", "{x1}"  # slots 1,984 and 10,114


def test_a_url_names_some_nodes_and_each_has_one_of_its_own() -> None:
    url = ClusterUrl.of("rediss+cluster://ann:p%2C@one:7000,[::1]:7001,two/0?ssl_cert_reqs=none")
    assert url.seeds == (("one", 7000), ("::1", 7001), ("two", 6379))
    assert [url.at(seed) for seed in url.seeds] == [
        "rediss://ann:p%2C@one:7000/0?ssl_cert_reqs=none",
        "rediss://ann:p%2C@[::1]:7001/0?ssl_cert_reqs=none",
        "rediss://ann:p%2C@two:6379/0?ssl_cert_reqs=none",
    ]
    assert ClusterUrl.of("redis+cluster://one").at(("two", 1)) == "redis://two:1"
    assert is_cluster(Settings.model_validate({"REDIS_URL": "redis+cluster://one"}))
    assert not is_cluster(Settings.model_validate({"REDIS_URL": "redis://one:6379/0"}))


@pytest.mark.parametrize("key", ["a", "{a}b", "x{a}", "{}a", "{}{a}", "{a", "a}{b}", "{{a}}", "ä"])
def test_a_slot_is_what_the_library_says(key: str) -> None:
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


def test_the_keys_of_a_bucket_are_in_one_slot_with_its_positions() -> None:
    for view in VIEWS:
        keys = Keys("p", view.name, 3, spread=True)
        for bucket in range(BUCKETS):
            own = {keys.base(bucket), *keys.stamps(bucket), keys.all_positions[bucket]}
            assert len({slot_of(key) for key in own}) == 1


def test_a_table_says_who_serves_what() -> None:
    assert TABLE.masters == (A, B)
    assert (TABLE.owner(ON_A), TABLE.owner(ON_B)) == (A, B)
    assert Table.of([[0, 16_383, ["", 1, "id"]]], ("seed", 9)).masters == (("seed", 1),)
    with pytest.raises(ClusterUnready, match="nobody serves"):
        Table.of([[0, 16_382, ["a", 1, "id"]]], A)


def test_commands_go_to_their_nodes_in_their_order_and_replies_come_back_in_theirs() -> None:
    commands: list[Command] = [
        ("GET", ON_B),
        ("EVALSHA", "sha", 2, ON_A, f"{ON_A}more", "argument"),
        ("SCRIPT", "LOAD", "text"),
        ("INFO", "server"),
        ("HSET", ON_B, "field", 1),
    ]
    plan = Plan.of(commands, TABLE, None)
    assert plan.by_node == {B: [0, 2, 3, 4], A: [1, 2, 3]}
    answers: dict[Address, list[Any]] = {
        B: ["of b", "sha", "run_id:b\n", 1],
        A: ["of a", "sha", "run_id:a\n"],
    }
    found = plan.gather(answers)
    assert (found[:3], found[4]) == (["of b", "of a", "sha"], 1)
    assert sorted(found[3].splitlines()) == ["run_id:a", "run_id:b"]


def test_an_error_of_one_node_is_the_reply_of_a_command_for_all() -> None:
    plan = Plan.of([("SCRIPT", "LOAD", "text")], TABLE, None)
    fault = ResponseError("no")
    assert plan.gather({A: ["sha"], B: [fault]}) == [fault]


def test_a_transaction_stays_where_it_watches() -> None:
    first = Plan.of([("WATCH", ON_B), ("GET", ON_B)], TABLE, None)
    then = Plan.of([("MULTI",), ("EXEC",)], TABLE, first.watched)
    assert (first.by_node, then.by_node) == ({B: [0, 1]}, {B: [0, 1]})
    assert Plan.of([("WATCH", ON_A), ("UNWATCH",)], TABLE, then.watched).by_node == {A: [0, 1]}


@pytest.mark.parametrize(
    "passing",
    [MovedError("3 b:2"), AskError("3 b:2"), TryAgainError("wait"), ClusterDownError("down")],
)
def test_what_passes_is_told_from_what_is_wrong(passing: ResponseError) -> None:
    with pytest.raises(ClusterUnready):
        refuse_passing(["x", NoScriptError("no"), passing])
    refuse_passing(["x", NoScriptError("no"), None])


def test_only_keys_that_have_gone_ahead_are_asked_for_elsewhere() -> None:
    assert asked_elsewhere(["x", MovedError("3 b:2"), AskError("3 b:2")]) == [(2, B)]


@pytest.mark.parametrize(
    ("flags", "slots", "found"),
    [
        ("myself,master", "0-8000 9000", ("id", "7", "0-8000", "9000")),
        ("myself,master", "", ("id", "7")),
        ("myself,master", "0-8000 [9-<-other]", None),
        ("myself,master", "0-8000 [9->-other]", None),
        ("myself,slave", "", None),
        ("master", "0-8000", None),
    ],
)
def test_a_node_with_a_slot_on_its_way_is_not_listed(
    flags: str, slots: str, found: tuple[str, ...] | None
) -> None:
    other = "other h:1@2 slave - 0 0 3 connected"
    text = f"{other}\nid h:1@2,name {flags} - 0 0 7 connected {slots}\n"
    if found is not None:
        assert own_part(text) == found
        return
    with pytest.raises(ClusterUnready):
        own_part(text)
