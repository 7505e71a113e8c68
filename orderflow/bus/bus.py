"""The one place a service talks to: commands in, outcomes out; queries in, typed answers out.

A `Bus` knows handlers and middleware, and no transport: `kafka.kafka_bus` and `in_process.in_process_bus`
give it one each, and everything else is the same code. The invariant: a message has one handler and passes
every middleware, in their order, on each transport alike.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar

from commands.aggregate import Command
from orderflow.bus.calls import (
    Call,
    CommandCall,
    CommandHandler,
    Middleware,
    Proceed,
    QueryCall,
)
from orderflow.bus.errors import CallParked, CallTimeout, InvalidMessage, Problem, Unavailable
from orderflow.bus.middleware import standard
from orderflow.bus.pipeline import register_pipeline
from orderflow.bus.ports import Commands, Views
from orderflow.bus.queries import Query
from orderflow.bus.registry import CommandRoute, QueryRoute, ReadModel, Registry, WaitFor, parsed
from orderflow.commanding import outgoing
from orderflow.placing import Placement, ended, order_command, refused, still_running
from runtime.client import CommandParked, CommandTooLarge, OutgoingCommand, room
from runtime.waiting import RepliesMissed
from sagas.messages import StartSaga
from schemas.records import Outcome
from schemas.topics import SAGA

COMMAND_TIMEOUT_S: Final = 30.0
QUERY_TIMEOUT_S: Final = 10.0

A = TypeVar("A")
C = TypeVar("C", bound=Command)
Q = TypeVar("Q", bound=Query[Any])
T = TypeVar("T")


class Bus:
    """Any number of tasks may use it at once. It is made by `kafka_bus` or `in_process_bus`."""

    def __init__(
        self, commands: Commands, views: Views, middleware: Sequence[Middleware] | None = None
    ) -> None:
        """``middleware``: outermost first; None: the `middleware.standard` one.

        Every command, query and view of the pipeline is registered.
        """
        self._commands = commands
        self._middleware = tuple(standard() if middleware is None else middleware)
        self._registry = Registry()
        register_pipeline(self._registry, views, self._send)

    # What can be asked.

    def register_command(
        self, model: type[C], handler: CommandHandler[C], *, aggregate: str
    ) -> None:
        """A command of your own, decided by your own function. Raises DuplicateHandler.

        ``handler`` gets a `CommandCall` and returns ``call.accepted(…)`` or ``call.rejected(…)``. It may get
        the same ``call.command_id`` more than once, and then owes the first outcome.
        """
        self._registry.add_command(CommandRoute(model, aggregate, handler))

    def register_query(
        self,
        model: type[Q],
        handler: Callable[[Q], Awaitable[Any]],
        *,
        reads: Iterable[str] = (),
    ) -> None:
        """A query of your own. ``reads``: the read models its answer comes from, to be waited for with
        ``at_least``. Raises DuplicateHandler, NoHandler for an unknown read model.
        """
        self._registry.add_query(QueryRoute(model, handler, self._registry.reads(reads)))

    def register_read_model(self, name: str, *, aggregate: str, wait_for: WaitFor) -> None:
        """A read model of your own, which follows the events of an aggregate. Raises DuplicateHandler."""
        self._registry.add_read_model(ReadModel(name, aggregate, wait_for))

    def command(self, name: str, data: Mapping[str, Any] | str | bytes) -> Command:
        """A command from its name and its fields, or their JSON. Raises NoHandler, InvalidMessage."""
        return parsed(self._registry.command(name).model, data)

    def query(self, name: str, data: Mapping[str, Any] | str | bytes) -> Query[Any]:
        """A query from its name and its fields, or their JSON. Raises NoHandler, InvalidMessage."""
        return parsed(self._registry.query(name).model, data)

    # Asking.

    async def execute_command(
        self,
        command: Command,
        *,
        aggregate_id: str,
        command_id: str | None = None,
        expected_version: int | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        timeout: float = COMMAND_TIMEOUT_S,
    ) -> Outcome:
        """Sends a command and returns its outcome; a rejection is one.

        ``command_id``: a new one if left out; the same again gets the first outcome again. ``timeout``:
        seconds, over all attempts. Raises NoHandler, InvalidMessage, Unavailable, CallTimeout, of
        which CallParked is one.
        """
        route = self._registry.command(type(command).__name__, type(command))
        call = CommandCall(
            command,
            route.aggregate,
            aggregate_id,
            command_id or uuid.uuid4().hex,
            timeout,
            expected_version,
            correlation_id,
            traceparent,
        )
        outcome: Outcome = await self._through(call, route.handler)
        return outcome

    async def execute_query(
        self,
        query: Query[A],
        *,
        at_least: Outcome | Sequence[Outcome] = (),
        timeout: float = QUERY_TIMEOUT_S,
    ) -> A:
        """The answer to a query.

        ``at_least``: outcomes of commands that the answer includes, to read what one has just written.
        ``timeout``: seconds, waiting included. Raises NoHandler, InvalidMessage, Unavailable, CallTimeout.
        """
        route = self._registry.query(type(query).__name__, type(query))
        included = (at_least,) if isinstance(at_least, Outcome) else tuple(at_least)
        call = QueryCall(query, timeout, included, route.follows)
        answer: A = await self._through(call, partial(_ask, route))
        return answer

    async def place_order(
        self,
        order_id: str,
        *,
        timeout: float = COMMAND_TIMEOUT_S,
        traceparent: str | None = None,
        **order: Any,
    ) -> Placement:
        """Places an order over all services and waits for its end, at most ``timeout`` seconds.

        ``order``: as `orderflow.placing.order_command`'s. The same again gives the same answer and no
        second order. Raises InvalidMessage, Unavailable.
        """
        start = order_command(order_id, **order)
        call = CommandCall(
            StartSaga.model_validate_json(start.data),
            SAGA,
            order_id,
            start.command_id,
            timeout,
            correlation_id=start.correlation_id,
            traceparent=traceparent,
        )
        try:
            placement: Placement = await self._through(call, self._follow)
        except CallTimeout:
            return still_running(order_id, timeout)
        return placement

    # Inside.

    async def _through(self, call: Call, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        step: Proceed = handler
        for middleware in reversed(self._middleware):
            step = partial(_pass, middleware, step)
        return await step(call)

    async def _send(self, call: CommandCall[Any]) -> Outcome:
        command = _outgoing(call)
        await room(self._commands)
        with _SizeRefused(call):
            future = self._commands.submit(command)
        return await _of(future)

    async def _follow(self, call: CommandCall[Any]) -> Placement:
        """Starts a saga and waits for its end. Who has taken its partition over does not know who waits, so
        each attempt of `Retrying` asks anew.
        """
        command = _outgoing(call)
        await room(self._commands)
        with _SizeRefused(call):
            begun, end = self._commands.submit_and_follow(command)
        try:
            outcome = await _of(begun)
            if not outcome.accepted:
                return refused(call.aggregate_id, outcome)
            return ended(call.aggregate_id, await _of(end))
        finally:
            begun.cancel()
            end.cancel()


async def _pass(middleware: Middleware, proceed: Proceed, call: Call) -> Any:
    return await middleware(call, proceed)


async def _ask(route: QueryRoute, call: QueryCall[Any]) -> Any:
    try:
        for outcome in call.at_least:
            for model in route.reads:
                if model.aggregate == outcome.aggregate:
                    await model.wait_for(outcome.aggregate_id, outcome.version, call.timeout_s)
    except TimeoutError as late:
        raise CallTimeout(str(late)) from late
    return await route.handler(call.query)


async def _of(future: Future[T]) -> T:
    """Return the future's result; a caller that is cancelled cancels it. Raises CallParked, Unavailable."""
    try:
        return await asyncio.wrap_future(future)
    except CommandParked as parked:
        raise CallParked(str(parked)) from parked
    except RepliesMissed as missed:
        raise Unavailable(str(missed)) from missed


def _outgoing(call: CommandCall[Any]) -> OutgoingCommand:
    return outgoing(
        call.aggregate_id,
        call.command,
        command_id=call.command_id,
        expected_version=call.expected_version,
        correlation_id=call.correlation_id,
        traceparent=call.traceparent,
    )


class _SizeRefused:
    """Makes CommandTooLarge, which the client finds when it writes the command, an InvalidMessage."""

    def __init__(self, call: CommandCall[Any]) -> None:
        self._name = call.name

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CommandTooLarge):
            raise InvalidMessage(self._name, [Problem("", str(error))]) from error
