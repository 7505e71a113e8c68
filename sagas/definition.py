"""What a saga is made of: steps, each with its commands, how an answer is read, and how it is undone.

Pure data and pure functions. A step's commands depend on the saga's id and input and on nothing
else, so they can be made again, the same, whenever they are needed: to send, to ask again, to undo.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import msgspec
from pydantic import BaseModel

from commands.aggregate import Command
from schemas.rejections import Code


@dataclass(frozen=True, slots=True)
class Send:
    """A command for one aggregate."""

    aggregate: str
    aggregate_id: str
    command: Command


class AnswerEvent(msgspec.Struct, frozen=True):
    """An event that the answered command caused."""

    type: str
    data: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    """What came of a command: its type, whether it was accepted, why not, and which events it caused.

    An answer may be that of a later command on the same matter: the request for a payment is answered
    by its capture. ``repeated``: it was given before, and its events are not told again.
    """

    type: str
    accepted: bool
    code: str | None = None
    message: str | None = None
    events: tuple[AnswerEvent, ...] = ()
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """It is done."""


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """It was refused because it is done already, or there was nothing to do."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Noted somewhere, but not done yet: a further answer will come."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It will not be done. ``undone``: some of it was, and whoever did it has undone that. ``to_undo``:
    some of it was, and is to be undone as if nobody knew.
    """

    code: str
    message: str
    undone: bool = False
    to_undo: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """It was not done now; the same question later may have another answer."""

    code: str
    message: str


Reading = Done | NothingToDo | Waiting | Refused | Again
"""How a step understands an answer."""

Read = Callable[[Answer], Reading]


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait for answers, and how often to ask. Milliseconds.

    The wait doubles with each attempt up to ``longest_ms``; ``pause_ms`` is the first pause before a
    command that was refused in passing is asked again.
    """

    attempts: int = 3
    timeout_ms: int = 10_000
    pause_ms: int = 500
    longest_ms: int = 60_000

    def patient(self, factor: float) -> Self:
        """The same, with all waits so many times as long."""
        return replace(
            self,
            timeout_ms=max(1, int(self.timeout_ms * factor)),
            pause_ms=max(1, int(self.pause_ms * factor)),
            longest_ms=max(1, int(self.longest_ms * factor)),
        )

    def timeout(self, attempt: int) -> int:
        """How long the ``attempt``-th (from 1) is waited for."""
        return min(self.longest_ms, self.timeout_ms << min(attempt - 1, 30))

    def pause(self, attempt: int) -> int:
        """How long after a refusal in the ``attempt``-th it is asked again."""
        return min(self.longest_ms, self.pause_ms << min(attempt - 1, 30))


PASSING: Final = frozenset({Code.INTERNAL_ERROR, Code.VERSION_CONFLICT})
"""Refusals that say nothing about the matter."""


def read_outcome(answer: Answer) -> Reading:
    """Accepted is done; refused is refused, unless it may pass."""
    if answer.accepted:
        return Done()
    code, message = answer.code or Code.INTERNAL_ERROR, answer.message or ""
    return Again(code, message) if code in PASSING else Refused(code, message)


def reading_as_done(*codes: Code) -> Read:
    """As ``read_outcome``, but these refusals mean that there is nothing (more) to do; any other may
    pass: what undoes is tried again.
    """

    def read(answer: Answer) -> Reading:
        if answer.accepted:
            return Done()
        if answer.code in codes:
            return NothingToDo()
        return Again(answer.code or Code.INTERNAL_ERROR, answer.message or "")

    return read


@dataclass(frozen=True, slots=True)
class Undo:
    """How one command of a step is undone: ``of`` gives, for the command, the one that undoes it.

    It is sent after the command to the same aggregate, so it is decided after it, even where nobody
    knows whether the command was.
    """

    of: Callable[[str, Any, Send], Send]
    read: Read
    retry: Retry = Retry(attempts=6)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``commands``: saga id and input → what is sent, all at once.

    ``undo`` None says that there is nothing to undo. ``external``: so many answers come without
    having been asked for (somebody else reacts to what happened).
    """

    name: str
    commands: Callable[[str, Any], tuple[Send, ...]]
    undo: Undo | None
    read: Read = read_outcome
    retry: Retry = Retry()
    external: int = 0

    @property
    def undoing(self) -> Undo:
        """How it is undone; only of a step that has something to undo."""
        assert self.undo is not None, f"step {self.name} has nothing to undo"
        return self.undo

    def patient(self, factor: float) -> Self:
        """The same step, with all waits so many times as long."""
        undo = self.undo and replace(self.undo, retry=self.undo.retry.patient(factor))
        return replace(self, retry=self.retry.patient(factor), undo=undo)


@dataclass(frozen=True, slots=True)
class SagaDefinition:
    """A saga: its name on the wire, what it starts from, and its steps in order.

    ``tells``: its events say what others need who react to them. ``part``: it belongs to another saga,
    which alone takes it back.
    """

    name: str
    input: type[BaseModel]
    steps: tuple[Step, ...]
    tells: bool = False
    part: bool = False

    def patient(self, factor: float) -> Self:
        """The same saga, with all waits so many times as long."""
        return replace(self, steps=tuple(step.patient(factor) for step in self.steps))

    def step(self, name: str) -> Step:
        """The step of this name. Raises KeyError."""
        return self.steps[self.position(name)]

    def position(self, name: str) -> int:
        """Where the step stands, from 0. Raises KeyError."""
        for number, step in enumerate(self.steps):
            if step.name == name:
                return number
        raise KeyError(f"saga {self.name} has no step {name}")
