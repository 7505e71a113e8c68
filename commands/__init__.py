"""The write side's rules: one aggregate a file, and here the one table of them all.

Pure: nothing here may import Kafka, Redis, Faust or the environment. A new aggregate is a file, a
row in ``AGGREGATES`` and a name in ``schemas.topics.DOMAIN``; the check below holds these
together at import.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from commands.aggregate import Aggregate
from commands.inventory import INVENTORY
from commands.order import ORDER
from commands.payment import PAYMENT
from commands.stream import STREAM
from commands.user import USER
from commands.webhook import WEBHOOK
from schemas import topics
from schemas.personal import personal_fields

AGGREGATES: Final[tuple[Aggregate, ...]] = (USER, INVENTORY, ORDER, PAYMENT, STREAM, WEBHOOK)


class TableError(Exception):
    """The table of aggregates contradicts itself or the topics; the message names what to mend."""


def check_table(aggregates: tuple[Aggregate, ...]) -> None:
    """Raises TableError unless these are the topics' aggregates, each command name used once."""
    names = tuple(aggregate.name for aggregate in aggregates)
    if names != topics.DOMAIN:
        raise TableError(
            f"commands.AGGREGATES has {names}, but schemas.topics.DOMAIN has "
            f"{topics.DOMAIN}: both must name the same aggregates in the same order"
        )
    personal = {a.name for a in aggregates if any(map(personal_fields, a.events))}
    if not personal <= topics.PERSONAL:
        raise TableError(
            f"{', '.join(sorted(personal - topics.PERSONAL))}: events have personal fields, so the "
            "aggregate belongs into schemas.topics.PERSONAL, by which its topics are erased in time"
        )
    owners: dict[str, str] = {}
    for command_type, aggregate in _commands_of(aggregates):
        if command_type in owners:
            raise TableError(
                f"command {command_type} stands in both {owners[command_type]} and "
                f"{aggregate.name}: a command's name must be its own over all aggregates"
            )
        owners[command_type] = aggregate.name


def _commands_of(aggregates: tuple[Aggregate, ...]) -> Iterator[tuple[str, Aggregate]]:
    for aggregate in aggregates:
        for command in aggregate.commands:
            yield command.__name__, aggregate


check_table(AGGREGATES)

by_name: Final[Mapping[str, Aggregate]] = {aggregate.name: aggregate for aggregate in AGGREGATES}
"""Aggregate name, as it stands in the topics, to aggregate."""

by_command: Final[Mapping[str, Aggregate]] = dict(_commands_of(AGGREGATES))
"""Command type, as it stands in a command record, to the aggregate that decides on it."""
