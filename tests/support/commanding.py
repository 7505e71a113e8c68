"""Short ways to say a command in a test."""

import json
import time
import uuid
from collections.abc import Callable

from runtime.client import OutgoingCommand
from sagas import by_command


def command(
    aggregate_id: str, kind: str, /, *, command_id: str | None = None, **data: object
) -> OutgoingCommand:
    """A command from its type and its data, valid or not."""
    return OutgoingCommand(
        by_command[kind].name,
        aggregate_id,
        kind,
        json.dumps(data).encode(),
        command_id or uuid.uuid4().hex,
    )


def eventually(condition: Callable[[], object], timeout: float = 30.0, every: float = 0.05) -> None:
    """Waits until the condition is truthy; fails the test otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s"
        time.sleep(every)
