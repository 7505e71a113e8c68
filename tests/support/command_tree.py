"""Every command of `orderflow` with arguments that fit, read from the app: a new one is among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperGroup

ENDLESS: Final = frozenset(
    {
        ("up",),
        ("demo",),
        ("processor",),
        ("saga-processor",),
        ("reactor",),
        ("projector",),
        ("verifier",),
        ("payments",),
        ("indexer",),
        ("gateway",),
        ("webhooks", "deliver"),
        ("sync", "sql"),
    }
)
"""Commands that go on until they are stopped, or start servers of their own."""

FITTING: Final[Mapping[str, tuple[str, ...]]] = {
    "command": ("RegisterUser",),
    "aggregate": ("order",),
    "lines": ("MUG:1:100",),
    "json": ('{"name": "Ada"}',),
    "currency": ("GBP",),
    "url": ("https://books.example/orderflow",),
    "events": ("order.*",),
    "letter_id": ("0-0",),
    "record": ("{}",),
    "timeout": ("1",),
    "wait": ("1",),
}
"""Parameter → an argument that gets past the checks of the command line. Any other gets an id."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or an option; ``flags`` is empty for an argument."""

    name: str
    flags: tuple[str, ...]
    required: bool
    is_flag: bool
    kind: Any
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A command that does something, by the words that lead to it."""

    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def __str__(self) -> str:
        return " ".join(self.path)

    def option(self, name: str) -> Parameter | None:
        """Return an option by its name."""
        return next((one for one in self.parameters if one.name == name and one.flags), None)

    def words(self, **given: str) -> list[str]:
        """Return a command line with all that is required, `FITTING` options, and ``given`` in its place."""
        words = list(self.path)
        arguments: list[str] = []
        for one in self.parameters:
            value = given.get(one.name, FITTING.get(one.name, ("o-1",))[0])
            if not one.flags:
                if one.required or one.name in given or self.path == ("history",):
                    arguments.append(value)
            elif one.is_flag:
                if one.name in given:
                    words.append(one.flags[0])
            elif one.required or one.name in given or one.name in {"timeout", "events"}:
                words += [one.flags[0], value]
        return [*words, "--", *arguments] if arguments else words


def leaves() -> tuple[Leaf, ...]:
    """Return all commands in the order of the help."""
    from orderflow.cli import app

    command = typer.main.get_command(app)
    context = command.make_context("orderflow", [], resilient_parsing=True)
    return tuple(_leaves(command, context, ()))


def _leaves(command: Any, context: Any, path: tuple[str, ...]) -> Iterator[Leaf]:
    if not isinstance(command, TyperGroup):
        yield Leaf(path, tuple(_parameter(one) for one in command.params))
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        inner = found.make_context(name, [], context, resilient_parsing=True)
        yield from _leaves(found, inner, (*path, name))


def _parameter(one: Any) -> Parameter:
    flags = tuple(one.opts) if one.param_type_name == "option" else ()
    kind = one.type_descriptor.annotation
    return Parameter(
        one.name, flags, one.required, bool(getattr(one, "is_flag", False)), kind, one.min, one.max
    )
