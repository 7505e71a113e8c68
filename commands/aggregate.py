"""What an aggregate is: a name, its commands, and two pure functions.

    decide(state, command)          -> events | Rejection      nothing changes here
    evolve(state, event, at_ms)     -> state                   nothing is refused here

``at_ms`` is the time of the command's record, epoch milliseconds UTC: time is data. Both are total
and deterministic, read no clock and no environment, so the same input gives the same bytes.

An aggregate whose state would grow for ever keeps *parts* beside its root: small states of their
own, each under its own key (``SKU/reservation``). A command names the parts it touches; only those
are loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.rejections import Code, Rejection
from schemas.upcasting import Json, Upcaster

Event = msgspec.Struct
Decision = tuple[Event, ...] | Rejection
"""One or more events in order, or why not. An empty tuple: accepted, and there was nothing to do."""


class Command(BaseModel):
    """Base of every command's data: unknown fields, floats for integers and numbers in strings are
    refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    UNCOUNTED: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not count when a command is sent again: other values make no other command of it."""

    UPCASTERS: ClassVar[tuple["OldForm", ...]] = ()
    """As of any message, see schemas/upcasting.py; of a command each step keeps the old model, too."""


@dataclass(frozen=True, slots=True)
class OldForm:
    """A command as it was in an older version, and the step from there to the next one.

    Commands come from anybody, so the old model stays to judge the old data: a mistake is named as it
    always was, the step gets only what is valid, and the digest by which a repetition is known stays
    what it was before the upgrade.
    """

    model: type[Command]
    step: Upcaster

    def __call__(self, data: Json) -> Json:
        """The data of the next version."""
        return self.step(data)


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """State of an aggregate as the shell hands it to ``decide``: the root and the parts the command
    names.

    ``root`` is None when the aggregate does not exist; a part is None when it does not exist. ``id`` is
    the aggregate's, and ``scope`` makes an id derived from it differ from those of every other pipeline
    (schemas/ids.py); only ``decide`` is told these two.
    """

    root: Any = None
    parts: Mapping[str, Any] = {}
    id: str = ""
    scope: str = ""


def no_parts(_: Any) -> tuple[str, ...]:
    """``parts_of`` of an aggregate that has only a root."""
    return ()


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One row of the table in commands/__init__.py; everything the shell has to know of an
    aggregate.

    ``decide`` gets and ``evolve`` gives a ``Loaded``: the root's type is ``root_type``, the parts'
    ``part_type``. ``parts_of`` gives the ids of the parts that a command touches. ``own_time``: something
    follows from when a command was sent, so a sender's word for when it happened does not count.
    """

    name: str
    commands: tuple[type[Command], ...]
    events: tuple[type[Event], ...]
    root_type: type[Event]
    decide: Callable[[Loaded, Any], Decision]
    evolve: Callable[[Loaded, Any, int], Loaded]
    part_type: type[Event] | None = None
    parts_of: Callable[[Any], tuple[str, ...]] = no_parts
    own_time: bool = False


def invalid_data(error: ValidationError, *within: str) -> Rejection:
    """The first thing that is wrong with data, with its path ``within`` it, e.g. ``lines.3.quantity``."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join((*within, *map(str, first["loc"]))) or None
    return Rejection(Code.INVALID_DATA, first["msg"], field)


VERSION_CONFLICT_MESSAGE: Final = (
    "expected version {expected}, but the {aggregate} stands at {actual}"
)


def version_conflict(aggregate: str, expected: int, actual: int) -> Rejection:
    """The refusal of a command whose ``expected_version`` is not the current one."""
    message = VERSION_CONFLICT_MESSAGE.format(aggregate=aggregate, expected=expected, actual=actual)
    return Rejection(Code.VERSION_CONFLICT, message, "expected_version")
