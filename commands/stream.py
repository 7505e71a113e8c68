"""A plain stream: whatever is appended, if it stands at the version that the writer expects.

Imported through the table in commands/__init__.py. The law is the shell's: ``expected_version`` is compared
by the one processor that owns the stream's partition, so two writers cannot both be right.
"""

from typing import Annotated, Final, assert_never

from pydantic import Field, StringConstraints

from commands.aggregate import Aggregate, Command, Decision, Loaded
from commands.free_json import FreeJson
from schemas.stream import EVENTS, Appended, StreamEvent, StreamState

MAX_EVENTS: Final = 1_000
"""At once; they stand in one transaction, and one command has at most 512 KiB."""

EventType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._\-]{0,127}$")]


class NewEvent(Command):
    """One event to append."""

    type: EventType = Field(description="What happened, e.g. CarrierNotified.")
    data: FreeJson = Field(description="What there is to say of it: any JSON object.")


class AppendEvents(Command):
    """Append events to a stream, all or none; the stream id is the record key."""

    events: tuple[NewEvent, ...] = Field(
        min_length=1, max_length=MAX_EVENTS, description="In order; each gets the next version."
    )


def decide(_: Loaded, command: AppendEvents) -> Decision:
    """Every append is right; whether it is in time, ``expected_version`` says."""
    match command:
        case AppendEvents():
            return tuple(Appended(event.type, event.data) for event in command.events)
        case _:
            assert_never(command)


def evolve(loaded: Loaded, event: StreamEvent, at_ms: int) -> Loaded:
    """The stream after the event."""
    stream: StreamState | None = loaded.root
    begun_at_ms = at_ms if stream is None else stream.begun_at_ms
    return Loaded(StreamState(event.type, begun_at_ms, at_ms))


STREAM: Final = Aggregate(
    name="stream",
    commands=(AppendEvents,),
    events=EVENTS,
    root_type=StreamState,
    decide=decide,
    evolve=evolve,
)
