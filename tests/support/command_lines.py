"""Whether a command line of `orderflow` exists: it is parsed, and nothing of it is carried out."""

from collections.abc import Sequence

import typer
from typer.core import TyperGroup


def parse(words: Sequence[str], *, complete: bool = True) -> list[str]:
    """The names that lead to the command to be run, e.g. ``["topics", "apply"]``.

    Not ``complete``: a document may name a command or a group of commands without what follows it.
    Raises typer's UsageError for a name, an option or an argument that does not fit.
    """
    from orderflow.cli import app

    command = typer.main.get_command(app)
    rest, path = list(words), list[str]()
    context = command.make_context(
        "orderflow", rest.copy(), resilient_parsing=not (complete or rest)
    )
    while isinstance(command, TyperGroup):
        if not rest:
            return path
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        command = found
        path.append(name)
        lenient = not (complete or rest)
        context = command.make_context(name, rest.copy(), context, resilient_parsing=lenient)
    return path
