"""Who handles what: commands, queries and read models by name, each registered once.

The invariant: a name means one thing. What is not here is answered with the names that are nearest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from commands.aggregate import Command
from orderflow.bus.calls import CommandHandler, QueryHandler
from orderflow.bus.errors import DuplicateHandler, InvalidMessage, NoHandler, Problem
from orderflow.bus.queries import Query

SIMILAR: Final = 3
"""Most names that are suggested."""

WaitFor = Callable[[str, int, float], Awaitable[int]]
"""Aggregate id, version and seconds → the version a read model has, once it is that or newer. Raises
TimeoutError."""

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", "CommandRoute", "QueryRoute", "ReadModel")


@dataclass(frozen=True, slots=True)
class ReadModel:
    """What queries read: it follows the events of one aggregate, and one can wait until it has them."""

    name: str
    aggregate: str
    wait_for: WaitFor


@dataclass(frozen=True, slots=True)
class CommandRoute:
    """Who handles a command, and whose command it is."""

    model: type[Command]
    aggregate: str
    handler: CommandHandler[Any]


@dataclass(frozen=True, slots=True)
class QueryRoute:
    """Who answers a query, and which read models the answer comes from."""

    model: type[Query[Any]]
    handler: QueryHandler[Any]
    reads: tuple[ReadModel, ...]

    @property
    def follows(self) -> frozenset[str]:
        """The aggregates whose outcomes its answer can be made to include."""
        return frozenset(model.aggregate for model in self.reads)


class Registry:
    """Routes by the name of the message. Not for changing while messages are under way."""

    def __init__(self) -> None:
        self.commands: dict[str, CommandRoute] = {}
        self.queries: dict[str, QueryRoute] = {}
        self.read_models: dict[str, ReadModel] = {}

    def add_command(self, route: CommandRoute) -> None:
        """Raises DuplicateHandler."""
        _add(self.commands, "command", route.model.__name__, route)

    def add_query(self, route: QueryRoute) -> None:
        """Raises DuplicateHandler."""
        _add(self.queries, "query", route.model.__name__, route)

    def add_read_model(self, model: ReadModel) -> None:
        """Raises DuplicateHandler."""
        _add(self.read_models, "read model", model.name, model)

    def command(self, name: str, model: type[Command] | None = None) -> CommandRoute:
        """The route of a command; of this very ``model``, if it is given. Raises NoHandler."""
        route = self.commands.get(name)
        if route is None or model not in (None, route.model):
            also = {"it is a query: use execute_query": self.queries}
            raise _no_handler("command", name, self.commands, also)
        return route

    def query(self, name: str, model: type[Query[Any]] | None = None) -> QueryRoute:
        """The route of a query. Raises NoHandler."""
        route = self.queries.get(name)
        if route is None or model not in (None, route.model):
            also = {"it is a command: use execute_command": self.commands}
            raise _no_handler("query", name, self.queries, also)
        return route

    def reads(self, names: Iterable[str]) -> tuple[ReadModel, ...]:
        """The read models of these names. Raises NoHandler."""
        found = []
        for name in names:
            if name not in self.read_models:
                raise _no_handler("read model", name, self.read_models, {})
            found.append(self.read_models[name])
        return tuple(found)


def parsed(model: type[M], data: Mapping[str, Any] | str | bytes) -> M:
    """A message from its fields, or from their JSON. Raises InvalidMessage with all that is wrong."""
    try:
        if isinstance(data, Mapping):
            # Through JSON, as on the wire: a list is a list there, whatever it becomes here.
            data = _json(data)
        return model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidMessage(model.__name__, problems_of(error)) from None


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """All that is wrong, each with its field."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(Problem(".".join(map(str, one["loc"])), one["msg"]) for one in found)


def _json(data: Mapping[str, Any]) -> bytes:
    from pydantic_core import to_json

    return to_json(dict(data))


def _add(routes: dict[str, R], kind: str, name: str, route: R) -> None:
    if name in routes:
        raise DuplicateHandler(kind, name)
    routes[name] = route


def _no_handler(
    kind: str, name: str, known: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> NoHandler:
    for hint, routes in others.items():
        if name in routes:
            return NoHandler(kind, name, hint=f": {hint}")
    similar = _similar(name, known)
    if name in similar:
        return NoHandler(kind, name, hint=": another class of this name is registered")
    return NoHandler(kind, name, similar, "" if similar else f"; there are: {', '.join(known)}")


def _similar(name: str, known: Mapping[str, Any]) -> list[str]:
    """The nearest names; capitals, underscores and hyphens do not count."""
    plain = {_plain(one): one for one in known}
    return [plain[one] for one in get_close_matches(_plain(name), plain, SIMILAR)]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()
