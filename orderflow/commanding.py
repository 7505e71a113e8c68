"""From a command's model to what a client sends: the aggregate is looked up in the table."""

import uuid

from commands.aggregate import Command
from runtime.client import OutgoingCommand
from sagas import by_command


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
        expected_version=expected_version,
        correlation_id=correlation_id,
        occurred_at_ms=occurred_at_ms,
        traceparent=traceparent,
    )
