"""From a command's model to what a client sends: the aggregate is looked up in the table."""

import uuid

from commands.aggregate import Command
from runtime.client import OutgoingCommand
from sagas import by_command
from schemas.records import FIRST_VERSION
from schemas.upcasting import version_of


def current_version(kind: str) -> int:
    """The schema version of a command type as it is written today; 1 of one that nobody knows."""
    known = by_command[kind].commands if kind in by_command else ()
    return next((version_of(model) for model in known if model.__name__ == kind), FIRST_VERSION)


def outgoing(
    aggregate_id: str,
    data: Command,
    *,
    command_id: str | None = None,
    expected_version: int | None = None,
    correlation_id: str | None = None,
    occurred_at_ms: int | None = None,
    traceparent: str | None = None,
) -> OutgoingCommand:
    """A command under its id, or a new random one. Raises KeyError for a model that no aggregate takes."""
    kind = type(data).__name__
    return OutgoingCommand(
        aggregate=by_command[kind].name,
        aggregate_id=aggregate_id,
        type=kind,
        data=data.model_dump_json().encode(),
        command_id=command_id or uuid.uuid4().hex,
        schema_version=version_of(type(data)),
        expected_version=expected_version,
        correlation_id=correlation_id,
        occurred_at_ms=occurred_at_ms,
        traceparent=traceparent,
    )
