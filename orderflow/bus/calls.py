"""A message on its way through the bus: the command or query, and all that goes with it.

Handlers and middleware get these; they are frozen, so a middleware that changes something passes on a copy
(``dataclasses.replace``).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from commands.aggregate import Command
from orderflow.bus.queries import Query
from schemas.records import Outcome, OutcomeStatus
from schemas.rejections import Code

C = TypeVar("C", bound=Command)
A = TypeVar("A")

Kind = Literal["command", "query"]


@dataclass(frozen=True, slots=True)
class CommandCall(Generic[C]):
    """A command for one aggregate.

    ``command_id`` is the same on every attempt: who handles it twice gives the first outcome again.
    ``traceparent``: W3C Trace Context. ``timeout_s``: how long the caller waits, seconds.
    """

    command: C
    aggregate: str
    aggregate_id: str
    command_id: str
    timeout_s: float
    expected_version: int | None = None
    correlation_id: str | None = None
    traceparent: str | None = None

    @property
    def kind(self) -> Kind:
        """What it is called in messages, logs and metrics."""
        return "command"

    @property
    def name(self) -> str:
        """Type of the command, as it stands in its record."""
        return type(self.command).__name__

    def __str__(self) -> str:
        return f"{self.name} {self.aggregate_id} (command id {self.command_id})"

    def accepted(self, version: int) -> Outcome:
        """For a handler of your own: the command was carried out and led to this version."""
        return self._outcome(OutcomeStatus.ACCEPTED, version)

    def rejected(
        self, code: Code, message: str, field: str | None = None, version: int = 0
    ) -> Outcome:
        """For a handler of your own: why it was refused, judged against this version."""
        return self._outcome(OutcomeStatus.REJECTED, version, code, message, field)

    def _outcome(
        self,
        status: OutcomeStatus,
        version: int,
        code: Code | None = None,
        message: str | None = None,
        field: str | None = None,
    ) -> Outcome:
        return Outcome(
            command_id=self.command_id,
            type=self.name,
            aggregate=self.aggregate,
            aggregate_id=self.aggregate_id,
            status=status,
            version=version,
            decided_at_ms=time.time_ns() // 1_000_000,
            code=code,
            message=message,
            field=field,
        )


@dataclass(frozen=True, slots=True)
class QueryCall(Generic[A]):
    """A query.

    ``at_least``: outcomes that the answer has to include. ``follows``: the aggregates whose outcomes can be
    waited for. ``timeout_s``: how long the caller waits, seconds.
    """

    query: Query[A]
    timeout_s: float
    at_least: tuple[Outcome, ...] = ()
    follows: frozenset[str] = frozenset()

    @property
    def kind(self) -> Kind:
        """What it is called in messages, logs and metrics."""
        return "query"

    @property
    def name(self) -> str:
        """Type of the query."""
        return type(self.query).__name__

    def __str__(self) -> str:
        return self.name


Call: TypeAlias = CommandCall[Any] | QueryCall[Any]
Proceed: TypeAlias = Callable[[Call], Awaitable[Any]]
"""What a middleware calls to go on; it may do so once, again, or not at all."""

Middleware: TypeAlias = Callable[[Call, Proceed], Awaitable[Any]]
"""``async def __call__(self, call, proceed)``: returns the answer, or raises."""

CommandHandler: TypeAlias = Callable[[CommandCall[C]], Awaitable[Outcome]]
QueryHandler: TypeAlias = Callable[[Any], Awaitable[A]]
"""Gets the query itself."""
