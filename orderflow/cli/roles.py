"""The roles, each a process of a real deployment: `orderflow processor` and so on; and the simulated
gateway.
"""

from typing import Annotated

import typer

from orderflow.cli.context import connected, settings
from orderflow.roles import stop_with_parent


def processor(
    aggregates: Annotated[
        list[str] | None, typer.Argument(help="Whose commands it decides; all by default.")
    ] = None,
) -> None:
    """Decide commands. Run as many as you like; they share the partitions."""
    from processors.command_processor import UnknownAggregate, work
    from processors.role import run_processor

    try:
        mine = work(aggregates or ())
    except UnknownAggregate as error:
        raise typer.BadParameter(str(error)) from error
    stop_with_parent()
    raise typer.Exit(run_processor(connected(redis=False), mine))


def saga_processor() -> None:
    """Run sagas. Run as many as you like; they share the partitions."""
    from processors.role import run_processor
    from processors.saga_processor import work

    stop_with_parent()
    found = connected(redis=False)
    raise typer.Exit(run_processor(found, work(found)))


def reactor() -> None:
    """Let services react to each other's events. Run as many as you like; they share the partitions."""
    from processors.role import run_reactor

    stop_with_parent()
    raise typer.Exit(run_reactor(connected(redis=False)))


def projector() -> None:
    """Keep the views in Redis up to date. Run as many as you like; they share the partitions."""
    from readmodels.projector import run_projector

    stop_with_parent()
    raise typer.Exit(run_projector(connected()))


def verifier(
    per_second: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="Records and rows looked at a second, at most."),
    ] = 200,
) -> None:
    """Verify views, states and laws without end, slowly. One is enough; it mends nothing."""
    from verification.role import run_verifier

    stop_with_parent()
    raise typer.Exit(run_verifier(connected(), per_second))


def payments() -> None:
    """Ask the payment gateway for what was requested. Run as many as you like; they share the partitions."""
    from payments.role import run_payments

    stop_with_parent()
    raise typer.Exit(run_payments(connected(redis=False)))


def indexer(
    once: Annotated[bool, typer.Option("--once", help="Index what there is now, and end.")] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Throw the index away first and read every topic anew."),
    ] = False,
) -> None:
    """Keep the index of the event store up to date, so that nobody who reads a stream has to."""
    from eventstore.role import index_once, run_indexer
    from orderflow.cli.progress import progress_bars, progress_reporter

    stop_with_parent()
    found = connected()
    if not once:
        raise typer.Exit(run_indexer(found, rebuild=rebuild))
    with progress_bars() as bars, bars.step("Indexing the histories") as step:
        index_once(found, rebuild=rebuild, on_progress=progress_reporter(step))


def gateway(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8750,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Simulate a payment gateway: test tokens, a ledger on disk, its address as a line of JSON."""
    from payments.simulated_gateway import run_gateway

    stop_with_parent()
    raise typer.Exit(run_gateway(settings(), port, host))
