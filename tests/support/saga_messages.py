"""What sagas have sent and what came back, read from the topics: nothing is missing, nothing is twice.

What has to be sent follows from the history by the sagas' pure functions. That it is there exactly as
often says that an event and the commands after it were written in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from commands import AGGREGATES as DOMAIN
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from sagas import choreography, react
from sagas.evolve import evolve
from schemas.ids import derived_id
from schemas.records import (
    CommandRecord,
    EventRecord,
    Outcome,
    decode_command,
    decode_event,
    decode_outcome,
)
from schemas.saga import EVENTS, SagaEvent, SagaState
from schemas.topics import AGGREGATES, SAGA
from tests.support.topics import Record, read_topics

TYPES = {event.__name__: event for event in EVENTS}
OF_THE_GATEWAY = {"CapturePayment", "FailPayment", "RefundPayment"}
OF_SERVICES = {part.saga for part in choreography.PARTS}


class SagaLog:
    """Commands, outcomes and history of every aggregate, each partition in its order."""

    def __init__(self, settings: Settings) -> None:
        topics = topics_of(settings)
        kinds = (topics.commands, topics.outcomes, topics.history)
        log = read_topics(settings, [kind(name) for kind in kinds for name in AGGREGATES])
        self.commands = {name: log[topics.commands(name)] for name in AGGREGATES}
        self.outcomes = {name: log[topics.outcomes(name)] for name in AGGREGATES}
        self.history = {name: log[topics.history(name)] for name in AGGREGATES}

    def undecided(self) -> list[str]:
        """What is still under way: commands without an outcome, and reactions that were not sent."""
        return [*self._without_outcome(), *map(str, reactions_due(self) - reactions_sent(self))]

    def _without_outcome(self) -> Iterator[str]:
        for name in AGGREGATES:
            asked = {(key_of(r), _command(r).command_id) for r in self.commands[name]}
            outcomes = [decode_outcome(r.value or b"") for r in self.outcomes[name]]
            decided = {(each.aggregate_id, each.command_id) for each in outcomes}
            for where, odd in (("command", asked - decided), ("outcome", decided - asked)):
                yield from (
                    f"{name}: {where} {key} {command} alone" for key, command in sorted(odd)
                )

    def saga_steps(self) -> Iterator[tuple[Record, str, EventRecord, SagaEvent, SagaState]]:
        """Each event of a saga, with the saga after it."""
        sagas: dict[str, SagaState] = {}
        for record in self.history[SAGA]:
            saga_id, envelope = key_of(record), decode_event(record.value or b"")
            event = msgspec.json.decode(envelope.data, type=TYPES[envelope.type])
            saga = evolve(sagas.get(saga_id), event, envelope.occurred_at_ms)
            sagas[saga_id] = saga
            yield record, saga_id, envelope, event, saga


def key_of(record: Record) -> str:
    """The record's key as text."""
    return (record.key or b"").decode()


def header(record: Record, name: str) -> str:
    """The header's value; nothing where it is not there."""
    return record.headers.get(name, b"").decode()


def check_follow_ups(log: SagaLog) -> None:
    """The commands that sagas sent are those that follow from their events, each once an event."""
    due: Counter[tuple[str, ...]] = Counter()
    for _, saga_id, envelope, event, saga in log.saga_steps():
        for sent in react(saga_id, saga, event):
            due[
                sent.send.aggregate,
                sent.send.aggregate_id,
                sent.command_id,
                f"{saga_id}/{sent.token}",
                envelope.id,
                saga.correlation_id or saga_id,
            ] += 1
    found: Counter[tuple[str, ...]] = Counter()
    for aggregate, record, command in _answered(log):
        if command.type not in OF_THE_GATEWAY:
            marks = ("answer-to", "causation-id", "correlation-id")
            found[
                aggregate,
                key_of(record),
                command.command_id,
                *(header(record, name) for name in marks),
            ] += 1
    assert found == due


def check_reactions(log: SagaLog) -> None:
    """What services did because of each other's events is what follows from these, each once."""
    assert reactions_sent(log) == reactions_due(log)


def reactions_due(log: SagaLog) -> Counter[tuple[str, ...]]:
    """Saga, type, command id and conversation of each command that follows from an event."""
    due: Counter[tuple[str, ...]] = Counter()
    for record, saga_id, envelope, event, _ in log.saga_steps():
        correlation = header(record, "correlation-id")
        for number, each in enumerate(choreography.react(saga_id, event, correlation)):
            command_id = derived_id("reaction", saga_id, envelope.id, str(number))
            due[each.saga_id, type(each.command).__name__, command_id, correlation] += 1
    return due


def reactions_sent(log: SagaLog) -> Counter[tuple[str, ...]]:
    """The same, as it stands on the topic."""
    return Counter(
        (key_of(record), command.type, command.command_id, header(record, "correlation-id"))
        for record in log.commands[SAGA]
        if _is_reaction(record, command := _command(record))
    )


def check_answers(log: SagaLog, outcomes: Mapping[tuple[str, str, str], Outcome]) -> None:
    """Every command that is to be answered is answered with its outcome, each time that it came."""
    due: Counter[tuple[str, str, bool, bool]] = Counter()
    for aggregate in DOMAIN:
        seen: set[tuple[str, str]] = set()
        for record in log.commands[aggregate.name]:
            command_id, to = _command(record).command_id, header(record, "answer-to")
            identity = key_of(record), command_id
            if to:
                accepted = outcomes[aggregate.name, *identity].accepted
                due[to, command_id, accepted, identity in seen] += 1
            seen.add(identity)
    found: Counter[tuple[str, str, bool, bool]] = Counter()
    for record in log.commands[SAGA]:
        command = _command(record)
        if command.type == "RecordAnswer" and not _is_reaction(record, command):
            answer = msgspec.json.decode(command.data)
            to = f"{key_of(record)}/{answer['token']}"
            repeated = answer.get("repeated", False)
            found[to, header(record, "causation-id"), answer["accepted"], repeated] += 1
    assert found == due


def check_correlation(log: SagaLog, orders: Mapping[str, SagaState]) -> None:
    """All that an order causes belongs to its conversation; what operators order is their own."""
    conversations: dict[tuple[str, str, str], str] = {}
    for name in AGGREGATES:
        for record in log.commands[name]:
            command, conversation = _command(record), header(record, "correlation-id")
            place = name, key_of(record), command.command_id
            conversations.setdefault(place, conversation)
            to = key_of(record) if name == SAGA else header(record, "answer-to").partition("/")[0]
            order = orders.get(to.partition(":")[0])
            if order is not None and not _is_an_operators(record, command):
                wanted = order.correlation_id or to.partition(":")[0]
                assert conversation == wanted, place
        for record in log.history[name]:
            command_id = decode_event(record.value or b"").id.rsplit(":", 1)[0]
            wanted = conversations[name, key_of(record), command_id]
            assert header(record, "correlation-id") == wanted


def _is_reaction(record: Record, command: CommandRecord) -> bool:
    """Whether a command for a saga was caused by an event of another."""
    if command.type == "RecordAnswer":
        return msgspec.json.decode(command.data)["type"] in OF_SERVICES
    return "causation-id" in record.headers


def _is_an_operators(record: Record, command: CommandRecord) -> bool:
    ordered = command.type in ("RetrySaga", "CompensateSaga", "ResolveSaga")
    return ordered and not _is_reaction(record, command)


def _answered(log: SagaLog) -> Iterator[tuple[str, Record, CommandRecord]]:
    """The domain's commands that name a saga which waits for their outcome."""
    for aggregate in DOMAIN:
        for record in log.commands[aggregate.name]:
            if header(record, "answer-to"):
                yield aggregate.name, record, _command(record)


def _command(record: Record) -> CommandRecord:
    return decode_command(record.value or b"")
