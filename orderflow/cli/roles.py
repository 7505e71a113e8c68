"""`orderflow processor` and `orderflow projector`: one process of a real deployment."""

import typer

from orderflow.cli.context import connected
from orderflow.roles import stop_with_parent


def processor() -> None:
    """Decide commands. Run as many as you like; they share the partitions."""
    from processors.role import run_processor

    stop_with_parent()
    raise typer.Exit(run_processor(connected(redis=False)))


def projector() -> None:
    """Keep the views in Redis up to date. Run as many as you like; they share the partitions."""
    from readmodels.projector import run_projector

    stop_with_parent()
    raise typer.Exit(run_projector(connected()))
