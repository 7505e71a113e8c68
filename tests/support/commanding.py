"""Short ways to say a command in a test."""

import json
import time
import uuid
from collections.abc import Callable, Sized

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


def parking_order(
    aggregate: str, aggregate_id: str, kind: str, offset: int, **data: object
) -> OutgoingCommand:
    """What an operator orders about a command that could not be judged."""
    data = {"by": "ann", "offset": offset, **data}
    order_id = uuid.uuid4().hex
    return OutgoingCommand(aggregate, aggregate_id, kind, json.dumps(data).encode(), order_id)


def eventually(condition: Callable[[], object], timeout: float = 30.0, every: float = 0.05) -> None:
    """Waits until the condition is truthy; fails the test otherwise."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s"
        time.sleep(every)


def eventually_nothing(
    left: Callable[[], Sized], timeout: float = 30.0, every: float = 0.05
) -> None:
    """Wait until nothing is left; fail the test otherwise, and say what is."""
    deadline = time.monotonic() + timeout
    while found := left():
        assert time.monotonic() < deadline, f"after {timeout:g} s there is still {found}"
        time.sleep(every)
