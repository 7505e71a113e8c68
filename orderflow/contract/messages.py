"""Every type that goes over the wire and has to stay readable, as one table derived from the aggregates.

A new aggregate, event or command is in it by itself. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from commands.aggregate import Command
from commands.parking import ORDERS
from orderflow.contract.json_schemas import Schema, components, envelope_schema, old_forms
from sagas import AGGREGATES
from schemas.parking import Action, Parked, ParkedNotice
from schemas.records import CommandRecord, EventRecord, Outcome
from schemas.saga import SagaEnd
from schemas.upcasting import version_of
from schemas.webhook import Delivery

RECORDS: Final = "records"
"""The owner of what belongs to no one aggregate."""


PARKING: Final = "parking"
"""The owner of what every aggregate takes about a command that could not be judged."""


class Kind(StrEnum):
    """What part a type plays. It decides what a change of the type may do."""

    COMMAND = "command"
    EVENT = "event"
    STATE = "state"
    REPLY = "reply"
    ENVELOPE = "envelope"


@dataclass(frozen=True, slots=True)
class Message:
    """One type in one version. ``type`` is what reads it; of a command's older version, its old model."""

    owner: str
    kind: Kind
    name: str
    version: int
    type: Any
    is_current: bool = True

    @property
    def path(self) -> str:
        """How its files are called, without their ending."""
        return f"{self.owner}/{self.name}.v{self.version}"

    def schema(self) -> Schema:
        """The JSON Schema of the data alone, without the envelope."""
        if issubclass(self.type, Command):
            found: Schema = self.type.model_json_schema()
            return found
        if self.kind is Kind.ENVELOPE:
            return envelope_schema(self.type)
        (reference,), definitions = components([self.type])
        root: Schema = {**reference, "$defs": definitions}
        return root


def messages() -> tuple[Message, ...]:
    """Each type in its current version, and of each command its older ones, too."""
    return tuple(_messages())


def current() -> tuple[Message, ...]:
    """What is written today."""
    return tuple(m for m in messages() if m.is_current)


def _messages() -> Iterator[Message]:
    for aggregate in AGGREGATES:
        name = aggregate.name
        for model in aggregate.commands:
            yield _message(name, Kind.COMMAND, model)
            for version, old in old_forms(model):
                yield Message(name, Kind.COMMAND, model.__name__, version, old, is_current=False)
        for event in aggregate.events:
            yield _message(name, Kind.EVENT, event)
        yield _message(name, Kind.STATE, aggregate.root_type)
        if aggregate.part_type is not None:
            yield _message(name, Kind.STATE, aggregate.part_type)
    for order in ORDERS:
        yield _message(PARKING, Kind.COMMAND, order)
    for reply in (Outcome, SagaEnd, Delivery, ParkedNotice, Parked, Action):
        yield _message(RECORDS, Kind.REPLY, reply)
    for envelope in (CommandRecord, EventRecord):
        yield _message(RECORDS, Kind.ENVELOPE, envelope)


def _message(owner: str, kind: Kind, type_: type[Any]) -> Message:
    return Message(owner, kind, type_.__name__, version_of(type_), type_)
