"""`orderflow send`: one command, with or without waiting for its outcome."""

import difflib
import uuid
from typing import Annotated

import typer

from orderflow.cli.arguments import MAX_COUNT, MAX_SECONDS, checked_id, json_data
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, Styled, answers, print_json
from orderflow.commanding import current_version
from runtime.client import CommandClient, OutgoingCommand
from sagas import by_command
from schemas.records import Outcome


def send(
    command: Annotated[str, typer.Argument(help="Type of the command, e.g. RegisterUser.")],
    aggregate_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the aggregate.")],
    *,
    json: Annotated[str, typer.Option("--json", help="The command's fields as JSON.")] = "{}",
    wait: Annotated[bool, typer.Option(help="Wait for the outcome.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_SECONDS, help="Seconds to wait.")
    ] = 30.0,
    command_id: Annotated[
        str | None, typer.Option(help="Send it again with the same id: it is carried out once.")
    ] = None,
    expected_version: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_COUNT, help="Refuse unless the aggregate stands at this version."
        ),
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Id of the conversation; the command's id if left out.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send one command; with --wait exit code 1 means that it was rejected."""
    outgoing = OutgoingCommand(
        aggregate=_aggregate_of(command),
        aggregate_id=checked_id("ID", aggregate_id),
        type=command,
        data=json_data(json),
        command_id=checked_id("--command-id", command_id or f"cli-{uuid.uuid4().hex}"),
        schema_version=current_version(command),
        expected_version=expected_version,
        correlation_id=correlation_id,
    )
    with CommandClient(connected(redis=False)) as client:
        if not wait:
            client.send(outgoing)
            client.flush(timeout)
            _print_sent(outgoing, output)
            return
        outcome = client.execute(outgoing, timeout)
    show_outcome(outcome, output)
    if not outcome.accepted:
        raise quit_with(Exit.NO)


def _aggregate_of(command: str) -> str:
    """The aggregate that decides on it, from the table. Raises Refused with what was perhaps meant."""
    if command in by_command:
        return by_command[command].name
    lowered = {name.lower(): name for name in by_command}
    close = difflib.get_close_matches(command.lower(), lowered, n=3)
    if close:
        remedy = f"Did you mean {' or '.join(lowered[name] for name in close)}?"
    else:
        remedy = f"There are: {', '.join(by_command)}."
    raise Refused(f"there is no command {command!r}", remedy)


def _print_sent(command: OutgoingCommand, output: Output) -> None:
    if output is Output.JSON:
        print_json({"command_id": command.command_id, "status": "sent"})
    else:
        answers().say(
            f"sent {command.type} to {command.aggregate} {command.aggregate_id} as "
            f"{command.command_id}",
        )


def show_outcome(outcome: Outcome, output: Output) -> None:
    """An outcome for people, or as JSON."""
    if output is Output.JSON:
        print_json(outcome)
        return
    where = f"{outcome.aggregate} {outcome.aggregate_id}, version {outcome.version}"
    if outcome.accepted:
        answers().say(Styled("accepted", "green"), f" {where}")
        return
    field = f" (field {outcome.field})" if outcome.field else ""
    answers().say(Styled("rejected", "red"), f" {where}: {outcome.code}{field}")
    answers().say(outcome.message or "")
