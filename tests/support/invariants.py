"""The invariants of the log, checked on real topics after every fault.

An independent reading: it knows the aggregates' ``decide`` and ``evolve`` and the topics, and nothing
of the processor.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping

import msgspec

from commands.aggregate import Aggregate, Loaded
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from sagas import AGGREGATES
from schemas.ids import PART_SEPARATOR, is_part_key
from schemas.inventory import Reservation, StockLevel
from schemas.partitioner import partition_for
from schemas.records import EventRecord, Outcome, decode_event, decode_outcome
from tests.support.oracle import check_decisions
from tests.support.topics import Record, read_topics

States = dict[str, tuple[int, msgspec.Struct]]


class LogReading(msgspec.Struct):
    """What the topics say: outcomes by aggregate and command id, newest states by aggregate and id."""

    outcomes: dict[tuple[str, str, str], Outcome]
    states: dict[str, States]
    reservations: dict[str, dict[str, int]]


def check_log(settings: Settings) -> LogReading:
    """Asserts every invariant of the log and returns what it says."""
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    states: dict[str, States] = {}
    reservations: dict[str, dict[str, int]] = defaultdict(dict)
    topics = topics_of(settings)
    names = [
        name(aggregate.name)
        for aggregate in AGGREGATES
        for name in (topics.commands, topics.outcomes, topics.history, topics.events)
    ]
    log = read_topics(settings, names)
    for aggregate in AGGREGATES:
        _check_outcomes(log[topics.outcomes(aggregate.name)], aggregate, outcomes)
        check_decisions(log[topics.commands(aggregate.name)], aggregate, outcomes)
        history = log[topics.history(aggregate.name)]
        folded = _check_history(history, settings.partitions, aggregate, outcomes)
        events = log[topics.events(aggregate.name)]
        states[aggregate.name] = _check_states(events, aggregate, folded, reservations)
    for sku, (_, level) in states["inventory"].items():
        assert isinstance(level, StockLevel)
        assert level.on_hand == level.received + level.adjusted - level.shipped
        assert level.available >= 0
        assert level.reserved == sum(reservations[sku].values()), f"reservations of {sku}"
    return LogReading(outcomes, states, dict(reservations))


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
    aggregate: Aggregate,
    outcomes: Mapping[tuple[str, str, str], Outcome],
) -> dict[str, tuple[int, Loaded]]:
    """Versions run 1..n on the right partition, each event's command was accepted; returns the fold."""
    types = {event.__name__: event for event in aggregate.events}
    folded: dict[str, tuple[int, Loaded]] = {}
    events_of_commands: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        event, key = _event(record)
        assert record.partition == partition_for(record.key or b"", partitions)
        version, state = folded.get(key, (0, Loaded()))
        assert event.version == version + 1, (
            f"{aggregate.name} {key}: {event.version} after {version}"
        )
        assert not event.state
        assert event.data
        data = msgspec.json.decode(event.data, type=types[event.type])
        part = getattr(data, "reservation_id", None)
        if part is not None and part not in state.parts:
            state = Loaded(state.root, {**state.parts, part: None})
        folded[key] = event.version, aggregate.evolve(state, data, event.occurred_at_ms)
        command_id = event.id.rsplit(":", 1)[0]
        assert outcomes[aggregate.name, key, command_id].accepted
        events_of_commands[aggregate.name, key, command_id] += 1
    newest: dict[tuple[str, str], int] = {}
    for (name, key, _), outcome in outcomes.items():
        if name == aggregate.name and outcome.accepted:
            newest[name, key] = max(newest.get((name, key), 0), outcome.version)
    for (name, key), version in newest.items():
        assert folded.get(key, (0, None))[0] == version, f"{name} {key}: events are missing"
    return folded


def _check_states(
    records: list[Record],
    aggregate: Aggregate,
    folded: Mapping[str, tuple[int, Loaded]],
    reservations: dict[str, dict[str, int]],
) -> States:
    """Compacted state at version v equals the fold of history 1..v."""
    newest: dict[str, EventRecord] = {}
    parts: dict[str, bytes | None] = {}
    for record in records:
        key = (record.key or b"").decode()
        if is_part_key(key):
            parts[key] = record.value
        elif record.value is None:
            newest.pop(key, None)
        else:
            newest[key] = _event(record)[0]
    for key, value in parts.items():
        if value is not None:
            state = decode_event(value).state
            assert state
            sku, reservation_id = key.split(PART_SEPARATOR)
            reservation = msgspec.json.decode(state, type=Reservation)
            reservations[sku][reservation_id] = reservation.quantity
    assert newest.keys() == folded.keys()
    states: States = {}
    for key, event in newest.items():
        assert event.state
        root = msgspec.json.decode(event.state, type=aggregate.root_type)
        version, fold = folded[key]
        assert (event.version, root) == (version, fold.root), f"{aggregate.name} {key}"
        states[key] = version, root
    return states


def _event(record: Record) -> tuple[EventRecord, str]:
    assert record.key is not None
    assert record.value is not None
    return decode_event(record.value), record.key.decode()
