"""The app and its commands' order in the help.

A command's module is imported when the command is asked for: `orderflow up` starts nine processes, and none
of them has to load the others' libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info, get_group
from typer.models import CommandInfo

from orderflow.cli.boundary import run
from orderflow.cli.exits import EPILOG
from runtime.printable import from_system


class Entry(NamedTuple):
    """A command or a group of them: where it stands in this package, and under what the help lists it."""

    module: str
    attribute: str
    panel: str


RUN: Final = "Run"
USE: Final = "Use"
OPERATE: Final = "Operate"

COMMANDS: Final[Mapping[str, Entry]] = {
    "up": Entry("up", "up", RUN),
    "demo": Entry("demo", "demo", RUN),
    "processor": Entry("roles", "processor", RUN),
    "saga-processor": Entry("roles", "saga_processor", RUN),
    "reactor": Entry("roles", "reactor", RUN),
    "projector": Entry("roles", "projector", RUN),
    "verifier": Entry("roles", "verifier", RUN),
    "payments": Entry("roles", "payments", RUN),
    "indexer": Entry("roles", "indexer", RUN),
    "gateway": Entry("roles", "gateway", RUN),
    "send": Entry("send", "send", USE),
    "place-order": Entry("place", "place_order", USE),
    "query": Entry("query", "app", USE),
    "import": Entry("imports", "app", USE),
    "history": Entry("history", "history", OPERATE),
    "sagas": Entry("sagas", "app", OPERATE),
    "forget": Entry("forget", "app", OPERATE),
    "sync": Entry("sync", "app", OPERATE),
    "webhooks": Entry("webhook_deliveries", "app", OPERATE),
    "dead-letters": Entry("dead_letters", "app", OPERATE),
    "rebuild": Entry("rebuild", "rebuild", OPERATE),
    "consistency": Entry("consistency", "consistency", OPERATE),
    "verify": Entry("verify", "verify", OPERATE),
    "topics": Entry("topics", "app", OPERATE),
    "doctor": Entry("doctor", "doctor", OPERATE),
}
"""In the order of the help."""


class Commands(TyperGroup):
    """The top of the command line: every command line begins and ends here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        names: dict[str, Any] = dict.fromkeys(COMMANDS)
        self.commands = names  # by which a mistyped one is guessed

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name; None where there is none."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        found = getattr(import_module(f"orderflow.cli.{entry.module}"), entry.attribute)
        if isinstance(found, typer.Typer):
            made: Any = get_group(found)
            made.name = cmd_name
        else:
            info = CommandInfo(cmd_name, callback=found)
            made = get_command_from_info(
                info, pretty_exceptions_short=True, rich_markup_mode="rich"
            )
        made.rich_help_panel = entry.panel
        return made

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> int:
        """Run a command line; what goes wrong becomes a sentence and an exit code (`boundary`)."""
        words = [from_system(word) for word in (sys.argv[1:] if args is None else args)]

        def command() -> object:
            return super(Commands, self).main(
                words,
                prog_name or "orderflow",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        code = run(command, words)
        if standalone_mode:
            sys.exit(code)
        return code


app = typer.Typer(
    name="orderflow",
    cls=Commands,
    help="A CQRS order pipeline on Kafka and Redis.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _orderflow() -> None:
    """A CQRS order pipeline on Kafka and Redis."""
