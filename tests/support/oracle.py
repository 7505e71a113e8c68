"""What every outcome has to be: the domain's own functions over the commands in their order.

Where the invariants say that a log is consistent in itself, this says that it is the right one: a
processor that forgets what it has committed writes a consistent log of wrong refusals. Uses pydantic
models, ``decide`` and ``evolve`` of the aggregates, and nothing of the processor.
"""

from collections.abc import Mapping

import msgspec

from commands import parking
from commands.aggregate import Aggregate, Command, Decision, Loaded, version_conflict
from schemas.records import CommandRecord, Outcome, decode_command, decode_event
from schemas.rejections import Code, Rejection
from schemas.saga import SagaStarted
from tests.support.topics import Record

OF_THE_EDGE = frozenset(
    {
        Code.MALFORMED,
        Code.UNKNOWN_TYPE,
        Code.UNSUPPORTED_SCHEMA_VERSION,
        Code.INVALID_DATA,
        Code.TOO_LARGE,
        Code.WRONG_PARTITION,
        Code.DISCARDED,
    }
)
"""Refusals of what nobody has judged."""

ORDERS = frozenset(order.__name__ for order in parking.ORDERS)
"""What operators order about other commands; no domain judges it."""

Outcomes = Mapping[tuple[str, str, str], Outcome]


class _Drawn(msgspec.Struct):
    """What the processor drew when a saga began: no function of the log says it, and later decisions do
    depend on it.
    """

    scope: str | None = None


def drawn_scopes(history: list[Record]) -> dict[str, str]:
    """Return saga id → the scope that stands in the event with which it began."""
    scopes: dict[str, str] = {}
    for record in history:
        event = decode_event(record.value or b"")
        if event.type == SagaStarted.__name__:
            scope = msgspec.json.decode(event.data, type=_Drawn).scope
            scopes[(record.key or b"").decode()] = scope or ""
    return scopes


def check_decisions(
    commands: list[Record], aggregate: Aggregate, outcomes: Outcomes, scopes: Mapping[str, str]
) -> None:
    """Asserts that each outcome is what the domain says to its command. ``commands``: by partition
    and offset. ``scopes``: aggregate id → what the processor drew.
    """
    models = {model.__name__: model for model in aggregate.commands}
    states: dict[str, tuple[int, Loaded]] = {}
    answered: set[tuple[str, str, str]] = set()
    for record in commands:
        envelope = _envelope(record)
        if envelope is None:
            continue
        key = (record.key or b"").decode(errors="replace")
        identity = aggregate.name, key, envelope.command_id
        outcome = outcomes.get(identity)
        if outcome is None or identity in answered:  # a dead letter, or the same command again
            continue
        answered.add(identity)
        if outcome.code in OF_THE_EDGE or envelope.type in ORDERS:
            continue
        command = models[envelope.type].model_validate_json(bytes(envelope.data))
        version, loaded = states.get(key, (0, Loaded()))
        scope = scopes.get(key, "")
        known = Loaded(loaded.root, loaded.parts, outcome.aggregate_id, scope)
        decision = _decide(aggregate, known, command, version, envelope.expected_version)
        if isinstance(decision, Rejection):
            expected: tuple[bool, int, Code | None] = (False, version, decision.code)
        else:
            for event in decision:
                version, loaded = (
                    version + 1,
                    aggregate.evolve(loaded, event, outcome.decided_at_ms),
                )
            states[key] = version, loaded
            expected = True, version, None
        assert (outcome.accepted, outcome.version, outcome.code) == expected, (
            f"{aggregate.name} {key}, offset {record.offset} of partition {record.partition}: "
            f"{outcome} instead of {expected}"
        )


def _decide(
    aggregate: Aggregate, loaded: Loaded, command: Command, version: int, expected: int | None
) -> Decision:
    if expected is not None and expected != version:
        return version_conflict(aggregate.name, expected, version)
    parts = {part: loaded.parts.get(part) for part in aggregate.parts_of(command)}
    return aggregate.decide(Loaded(loaded.root, parts, loaded.id, loaded.scope), command)


def _envelope(record: Record) -> CommandRecord | None:
    try:
        return decode_command(record.value or b"")
    except msgspec.DecodeError:
        return None
