"""The commands of a saga: from clients, from operators, and from the pipeline itself."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from commands.aggregate import Command
from commands.free_json import FreeJson
from commands.ownership import Maker, OnlyMaker
from commands.text import Text
from schemas.ids import Id

MAX_TOKEN: Final = 96
MAX_MESSAGE: Final = 2_000


def _words(message: Any) -> Any:
    """Return a message as it can be kept. Other people's words stand in it, e.g. a gateway's reason: they
    must not keep the answer from the saga that waits for it.
    """
    if not isinstance(message, str):
        return message
    return message.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:MAX_MESSAGE]


_Objects = tuple[FreeJson, ...]


def _are_events(found: _Objects) -> _Objects:
    for event in found:
        if not isinstance(event.get("type"), str) or not isinstance(event.get("data", {}), dict):
            raise PydanticCustomError(
                "no_event", "Each event must have a `type` that is a string; `data` is an object"
            )
    return found


class StartSaga(Command):
    """Begin a saga; the saga id is the record key. The same again changes nothing."""

    UNCOUNTED = frozenset({"correlation_id"})

    saga: Id = Field(description="Name of the saga, e.g. `create_order`.")
    input: FreeJson = Field(description="What it starts from; each saga has its own fields.")
    correlation_id: Id | None = Field(
        default=None, description="Id of the conversation; the saga id if left out."
    )
    made_by: Maker = None


class RecordAnswer(Command):
    """Sent by the processors: what came of a command that the saga waits for."""

    token: str = Field(
        max_length=MAX_TOKEN, pattern=r"^[^\x00-\x1f]+$", description="Which command it answers."
    )
    type: Id = Field(description="Type of the command that was decided.")
    accepted: bool = Field(description="Whether it was accepted.")
    code: Id | None = Field(default=None, description="Why it was not.")
    message: Annotated[str | None, BeforeValidator(_words)] = Field(
        default=None,
        max_length=MAX_MESSAGE,
        pattern=r"^[^\x00]*$",
        description="The same in words.",
    )
    events: Annotated[_Objects, AfterValidator(_are_events)] = Field(
        default=(), description="The events it caused: `type` and `data` of each."
    )
    repeated: bool = Field(
        default=False, description="It was answered before; the events are not told again."
    )
    made_by: Id | None = Field(
        default=None,
        description="Of an answer of a part: whose part it is. Another's is not heard.",
    )


class WakeSaga(Command):
    """Sent by the saga processor: an appointment is due."""

    timer: int = Field(ge=0, le=2**31, description="Number of the appointment.")


class RetrySaga(Command):
    """An operator has it try again what failed, or ask again what is not answered."""

    by: Text = Field(description="Who orders it.")
    note: Text | None = Field(default=None, description="Why, in words for people.")


class CompensateSaga(Command):
    """Undo what was done. Of a saga that does not exist yet: it may not begin any more."""

    by: Text = Field(description="Who orders it.")
    reason: Text = Field(description="Why, in words for people.")
    code: Id = Field(default="ordered", description="The same as a code.")
    saga: Id | None = Field(
        default=None, description="Name of the saga; with it, one that has not begun is barred."
    )
    only_if_made_by: OnlyMaker = None


class ResolveSaga(Command):
    """An operator has put right by hand what could not be undone."""

    by: Text = Field(description="Who did it.")
    note: Text = Field(description="What was done, in words for people.")


SagaCommand = StartSaga | RecordAnswer | WakeSaga | RetrySaga | CompensateSaga | ResolveSaga
