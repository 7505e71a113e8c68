"""The app and its commands' order in the help; turns expected failures into a sentence and an exit code."""

from typing import Any

import typer
from typer.core import TyperGroup

from orderflow.cli import (
    consistency,
    dead_letters,
    demo,
    doctor,
    forget,
    history,
    imports,
    place,
    query,
    rebuild,
    roles,
    sagas,
    send,
    sync,
    topics,
    up,
    verify,
    webhook_deliveries,
)
from orderflow.cli.exits import EPILOG, EXPECTED, Exit, explain, quit_with, show


class Commands(TyperGroup):
    """The top of the command line: what is expected to go wrong is shown without a traceback."""

    def invoke(self, ctx: Any) -> object:
        """Runs the chosen command. Raises typer.Exit with a code of the table."""
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            failure = explain(error)
            show(failure)
            raise quit_with(failure.code) from None
        except KeyboardInterrupt:
            raise quit_with(Exit.INTERRUPTED) from None


app = typer.Typer(
    name="orderflow",
    cls=Commands,
    help="A CQRS order pipeline on Kafka and Redis.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up", rich_help_panel="Run")(up.up)
app.command("demo", rich_help_panel="Run")(demo.demo)
app.command("processor", rich_help_panel="Run")(roles.processor)
app.command("saga-processor", rich_help_panel="Run")(roles.saga_processor)
app.command("reactor", rich_help_panel="Run")(roles.reactor)
app.command("projector", rich_help_panel="Run")(roles.projector)
app.command("verifier", rich_help_panel="Run")(roles.verifier)
app.command("payments", rich_help_panel="Run")(roles.payments)
app.command("indexer", rich_help_panel="Run")(roles.indexer)
app.command("gateway", rich_help_panel="Run")(roles.gateway)
app.command("send", rich_help_panel="Use")(send.send)
app.command("place-order", rich_help_panel="Use")(place.place_order)
app.add_typer(query.app, name="query", rich_help_panel="Use")
app.add_typer(imports.app, name="import", rich_help_panel="Use")
app.command("history", rich_help_panel="Operate")(history.history)
app.add_typer(sagas.app, name="sagas", rich_help_panel="Operate")
app.add_typer(forget.app, name="forget", rich_help_panel="Operate")
app.add_typer(sync.app, name="sync", rich_help_panel="Operate")
app.add_typer(webhook_deliveries.app, name="webhooks", rich_help_panel="Operate")
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel="Operate")
app.command("rebuild", rich_help_panel="Operate")(rebuild.rebuild)
app.command("consistency", rich_help_panel="Operate")(consistency.consistency)
app.command("verify", rich_help_panel="Operate")(verify.verify)
app.add_typer(topics.app, name="topics", rich_help_panel="Operate")
app.command("doctor", rich_help_panel="Operate")(doctor.doctor)
