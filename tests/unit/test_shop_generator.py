"""The generated shop keeps its word: every command ends as its plan says, judged by the domain
itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest

from commands import by_name
from commands.aggregate import Loaded, version_conflict
from orderflow.shop import PlannedCommand, ShopPlan, expect, generate
from processors.edge import Edge, Request
from runtime.client import OutgoingCommand
from schemas.inventory import StockLevel
from schemas.order import OrderState
from schemas.partitioner import partition_for
from schemas.rejections import Code, Rejection

PARTITIONS = 4


@dataclass
class StraightPipeline:
    """The domain without Kafka: one command after the other, in memory."""

    states: dict[tuple[str, str], Loaded] = field(default_factory=dict)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str, str], tuple[str, Code | None]] = field(default_factory=dict)
    edges: dict[str, Edge] = field(
        default_factory=lambda: {name: Edge(each, PARTITIONS) for name, each in by_name.items()}
    )

    def decide(self, command: OutgoingCommand) -> Code | None:
        key = command.aggregate_id.encode()
        partition = partition_for(key, PARTITIONS)
        request = self.edges[command.aggregate].read(key, command.value(), partition)
        if not isinstance(request, Request):
            return request.rejection.code
        name = (command.aggregate, command.aggregate_id, command.command_id)
        if name in self.first:
            digest, code = self.first[name]
            return code if digest == request.digest else Code.COMMAND_ID_REUSED
        code = self._judge(command, request)
        self.first[name] = (request.digest, code)
        return code

    def _judge(self, command: OutgoingCommand, request: Request) -> Code | None:
        if request.rejection is not None:
            return request.rejection.code
        key, aggregate = (command.aggregate, command.aggregate_id), by_name[command.aggregate]
        loaded = self.states.get(key, Loaded())
        expected = request.expected_version
        if expected is not None and expected != self.versions[key]:
            return version_conflict(aggregate.name, expected, self.versions[key]).code
        decision = aggregate.decide(loaded, request.command)
        if isinstance(decision, Rejection):
            return decision.code
        for event in decision:
            loaded = aggregate.evolve(loaded, event, 0)
        self.states[key] = loaded
        self.versions[key] += len(decision)
        return None

    def roots(self, aggregate: str) -> dict[str, Any]:
        return {key: state.root for (name, key), state in self.states.items() if name == aggregate}


def run(plan: ShopPlan) -> tuple[list[PlannedCommand], StraightPipeline, list[str]]:
    commands = list(generate(plan))
    pipeline = StraightPipeline()
    wrong = [
        f"{command.type} {command.command_id}: {code} instead of {command.expected}"
        for command in commands
        if (code := pipeline.decide(command.outgoing())) != command.expected
    ]
    return commands, pipeline, wrong


PLANS = [
    ShopPlan(orders=300, seed=1),
    ShopPlan(orders=200, seed=2, bad_share=0.5),
    ShopPlan(orders=200, seed=3, users=1, skus=1, opening_stock=0),
    ShopPlan(orders=100, seed=4, bad_share=0.0, open_orders=1),
    ShopPlan(orders=0, seed=5),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"seed-{plan.seed}")
def test_every_command_ends_as_planned(plan: ShopPlan) -> None:
    _, _, wrong = run(plan)
    assert wrong == []


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"seed-{plan.seed}")
def test_the_expectation_is_what_the_domain_comes_to(plan: ShopPlan) -> None:
    commands, pipeline, _ = run(plan)
    expected = expect(commands)

    orders: dict[str, OrderState] = pipeline.roots("order")
    assert {key: (o.user_id, o.total, o.status.value) for key, o in orders.items()} == {
        key: (o.user_id, o.total, o.status) for key, o in expected.orders.items()
    }
    levels: dict[str, StockLevel] = pipeline.roots("inventory")
    assert {key: (level.on_hand, level.reserved) for key, level in levels.items()} == {
        key: (stock.on_hand, stock.reserved) for key, stock in expected.stock.items()
    }
    assert set(pipeline.roots("user")) == expected.users


def test_commands_of_different_aggregates_may_be_decided_in_any_order() -> None:
    commands = list(generate(ShopPlan(orders=150, seed=11, bad_share=0.2)))
    apart = sorted(commands, key=lambda command: (command.aggregate, command.aggregate_id))
    pipeline = StraightPipeline()

    wrong = [c for c in apart if pipeline.decide(c.outgoing()) != c.expected]

    assert wrong == []


def test_the_same_seed_gives_the_same_commands_and_another_seed_others() -> None:
    first, again = (list(generate(ShopPlan(orders=50, seed=9))) for _ in range(2))
    assert first == again
    assert first != list(generate(ShopPlan(orders=50, seed=10)))


def test_a_shop_is_generated_lazily() -> None:
    endless = generate(ShopPlan(orders=10**9))
    assert len(list(islice(endless, 1_000))) == 1_000


def test_every_kind_of_mischief_occurs_and_about_as_often_as_planned() -> None:
    commands = list(generate(ShopPlan(orders=1_000, seed=6, bad_share=0.1)))
    codes = Counter(command.expected for command in commands if command.expected)
    bad = codes.total() + sum(command.repeated for command in commands)

    assert set(codes) == {
        Code.COMMAND_ID_REUSED,
        Code.USER_NOT_FOUND,
        Code.USER_ALREADY_REGISTERED,
        Code.INSUFFICIENT_STOCK,
        Code.RESERVATION_NOT_FOUND,
        Code.INVALID_DATA,
        Code.UNKNOWN_TYPE,
        Code.INVALID_TRANSITION,
        Code.ORDER_NOT_FOUND,
        Code.REFUND_EXCEEDS_CAPTURE,
        Code.VERSION_CONFLICT,
    }
    assert any(command.repeated for command in commands)
    assert bad / len(commands) == pytest.approx(0.1, abs=0.01)


def test_the_most_popular_sku_sells_far_more_than_the_least() -> None:
    sold: Counter[str] = Counter()
    for command in generate(ShopPlan(orders=1_000, bad_share=0)):
        if command.type == "ReserveStock":
            sold[command.aggregate_id] += 1
    assert sold["sku-1"] > 10 * sold["sku-40"]


def test_a_namespace_begins_every_id() -> None:
    for command in generate(ShopPlan(orders=20, namespace="a.", bad_share=0.2)):
        assert command.aggregate_id.startswith("a.")
        assert command.command_id.startswith("a.")


@pytest.mark.parametrize("options", [{"users": 0}, {"bad_share": 1.0}, {"orders": -1}])
def test_a_plan_that_no_shop_can_follow_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shop|bad_share"):
        ShopPlan(**options)
