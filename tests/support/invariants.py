"""The invariants of the log, checked on real topics after every fault.

An independent reading: it knows the aggregates' ``decide`` and ``evolve`` and the topics, and nothing
of the processor. States, histories and laws are judged by what `orderflow verify` judges them with.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from commands.aggregate import Aggregate
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from sagas import AGGREGATES
from schemas.partitioner import partition_for
from schemas.records import Outcome, decode_outcome
from tests.support.oracle import check_decisions, drawn_scopes
from tests.support.topics import Record, read_topics
from verification import laws
from verification.folding import Fold, States, newest_states


class LogReading(msgspec.Struct):
    """What the topics say: outcomes by aggregate and command id, newest states by aggregate and id."""

    outcomes: dict[tuple[str, str, str], Outcome]
    states: dict[str, dict[str, tuple[int, Any]]]
    reservations: dict[str, dict[str, int]]


def check_log(settings: Settings) -> LogReading:
    """Asserts every invariant of the log and returns what it says."""
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    states: dict[str, States] = {}
    topics = topics_of(settings)
    names = [
        name(aggregate.name)
        for aggregate in AGGREGATES
        for name in (topics.commands, topics.outcomes, topics.history, topics.events)
    ]
    log = read_topics(settings, names)
    for aggregate in AGGREGATES:
        _check_outcomes(log[topics.outcomes(aggregate.name)], aggregate, outcomes)
        history = log[topics.history(aggregate.name)]
        scopes = drawn_scopes(history)
        check_decisions(log[topics.commands(aggregate.name)], aggregate, outcomes, scopes)
        events = log[topics.events(aggregate.name)]
        newest = newest_states(aggregate, ((record.key, record.value) for record in events))
        _check_history(history, settings.partitions, Fold(aggregate, newest), aggregate, outcomes)
        states[aggregate.name] = newest
    for sku, (_, level) in states["inventory"].roots.items():
        held = states["inventory"].parts.get(sku, {})
        assert not list(laws.stock(sku, level, sum(one.quantity for one in held.values())))
    for payment_id, (_, payment) in states["payment"].roots.items():
        assert not list(laws.payment(payment_id, payment))
    reservations: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for sku, parts in states["inventory"].parts.items():
        reservations[sku] = {order_id: one.quantity for order_id, one in parts.items()}
    roots = {name: one.roots for name, one in states.items()}
    return LogReading(outcomes, roots, reservations)


def _check_outcomes(
    records: list[Record], aggregate: Aggregate, found: dict[tuple[str, str, str], Outcome]
) -> None:
    for record in records:
        assert record.value is not None
        outcome = decode_outcome(record.value)
        identity = aggregate.name, outcome.aggregate_id, outcome.command_id
        assert identity not in found, f"two outcomes of {identity}"
        found[identity] = outcome


def _check_history(
    records: list[Record],
    partitions: int,
    fold: Fold,
    aggregate: Aggregate,
    outcomes: Mapping[tuple[str, str, str], Outcome],
) -> None:
    """Versions run 1..n on the right partition, each event's command was accepted, each state is the fold."""
    for record in records:
        assert record.partition == partition_for(record.key or b"", partitions)
        event = fold.add(record.key, record.value)
        assert event is not None
        assert not event.state
        key = (record.key or b"").decode()
        command_id = event.id.rsplit(":", 1)[0]
        assert outcomes[aggregate.name, key, command_id].accepted
    assert fold.finish() == []
    newest: dict[tuple[str, str], int] = {}
    for (name, key, _), outcome in outcomes.items():
        if name == aggregate.name and outcome.accepted:
            newest[name, key] = max(newest.get((name, key), 0), outcome.version)
    for (name, key), version in newest.items():
        assert fold.folded.get(key, (0, None))[0] == version, f"{name} {key}: events are missing"
