"""`orderflow topics`: the topics as they should be, against the cluster."""

from collections.abc import Sequence
from typing import Annotated

import typer

from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, answers, print_json, table
from orderflow.offsets import GroupInUse, PartitionOffsets, examine
from orderflow.offsets import accept_loss as set_offsets
from runtime import hanging, topic_admin
from runtime.hanging import Hanging
from runtime.settings import Settings
from runtime.topic_admin import TopicDifference, TopicState

app = typer.Typer(
    help="Create the topics, compare them with what they should be.", no_args_is_help=True
)


@app.command()
def apply(output: OutputOption = Output.TABLE) -> None:
    """Create what is missing and set what differs. A partition count is never changed."""
    found = topic_admin.apply(connected(redis=False))
    changed = [difference for difference in found if difference.state is not TopicState.OK]
    if output is Output.JSON:
        print_json({"topics": len(found), "changed": changed})
        return
    if changed:
        _print("Changed", changed)
    answers().say(f"{len(found)} topics, {len(changed)} changed.")


@app.command()
def diff(output: OutputOption = Output.TABLE) -> None:
    """Show what differs; exit code 1 when anything does."""
    found = topic_admin.diff(connected(redis=False))
    different = [difference for difference in found if difference.state is not TopicState.OK]
    if output is Output.JSON:
        print_json(different)
    elif different:
        _print("Differences", different)
    else:
        answers().say(f"{len(found)} topics are as they should be.")
    if different:
        raise quit_with(Exit.NO)


@app.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """Show every topic, how it is cleaned up, and how it stands."""
    settings = connected(redis=False)
    specs = {spec.name: spec for spec in topic_admin.topics_of(settings).specs()}
    rows = [
        {
            "name": found.name,
            "state": found.state,
            "partitions": found.partitions_found,
            "config": specs[found.name].config,
        }
        for found in topic_admin.diff(settings)
    ]
    if output is Output.JSON:
        print_json(rows)
        return
    shown = (
        (
            row["name"],
            row["state"],
            row["partitions"],
            specs[str(row["name"])].config["cleanup.policy"],
        )
        for row in rows
    )
    answers().show(table("Topics", ("topic", "state", "partitions", "cleanup"), shown))


@app.command()
def offsets(
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Let the processors go on at the first command that is left, where they refuse. Stop them "
            "first.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show up to where the commands of each partition are decided; exit code 1 when some are missing."""
    settings = connected(redis=False)
    found = examine(settings)
    problems = [one for one in found if one.problem]
    if output is Output.JSON:
        print_json(found)
    else:
        _print_offsets(found)
        for one in problems:
            answers().say(one.problem)
    if not problems:
        return
    if not accept_loss:
        raise quit_with(Exit.NO)
    if not yes:
        typer.confirm(f"Go on without these commands on {len(problems)} partitions?", abort=True)
    try:
        set_offsets(settings, found)
    except GroupInUse as error:
        raise Refused(str(error), "Stop them, then try again.", Exit.NO) from None
    if output is Output.TABLE:
        answers().say(f"{len(problems)} offsets set. Start the processors.")


@app.command("abort-hanging")
def abort_hanging(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Abort those, too, that their coordinator knows as under way or as committed.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Find transactions that hang open and abort them: readers and processors wait for them for ever."""
    settings = connected(redis=False)
    found = hanging.find(settings, hanging.stuck(settings, _partitions(settings)))
    if output is Output.JSON:
        print_json(found)
    elif not found:
        answers().say("No transaction hangs.")
        return
    else:
        _print_hanging(found)
    # To abort what was committed would leave it on some partitions and not on others.
    ours = [one for one in found if force or one.state not in hanging.STILL_MEANT]
    if not ours:
        if found:
            raise Refused(
                "their coordinator knows these transactions as under way or as committed",
                "Wait for them, or abort them with --force; then run `orderflow verify`.",
                Exit.NO,
            )
        return
    if not yes:
        typer.confirm(f"Abort {len(ours)} transactions?", abort=True)
    hanging.abort(settings, ours)
    if output is Output.TABLE:
        answers().say(f"{len(ours)} transactions aborted.")


def _partitions(settings: Settings) -> list[tuple[str, int]]:
    """All partitions of the product's topics."""
    return [
        (spec.name, number)
        for spec in topic_admin.topics_of(settings).specs()
        for number in range(spec.partitions)
    ]


def _print_hanging(found: Sequence[Hanging]) -> None:
    rows = (
        (
            f"{one.topic}-{one.partition}",
            one.stable_offset,
            one.end,
            f"{one.producer_id}/{one.producer_epoch}",
            one.transactional_id or "unknown",
            one.state or "unknown",
        )
        for one in found
    )
    columns = ("partition", "stable", "end", "producer/epoch", "transactional id", "state")
    answers().show(table("Hanging transactions", columns, rows))


def _print_offsets(found: Sequence[PartitionOffsets]) -> None:
    rows = (
        (
            one.group,
            f"{one.topic}-{one.partition}",
            "unknown" if one.committed is None else one.committed,
            "unknown" if one.decided is None else one.decided,
            one.first,
            one.end,
            one.missing or "",
        )
        for one in found
    )
    columns = ("group", "partition", "committed", "decided", "log begins", "log ends", "missing")
    answers().show(table("Commands", columns, rows))


def _print(title: str, differences: list[TopicDifference]) -> None:
    rows = (
        (
            difference.name,
            difference.state,
            f"{difference.partitions_found} of {difference.partitions_wanted}",
            ", ".join(
                f"{option}: {found} → {wanted}"
                for option, (found, wanted) in difference.config.items()
            ),
        )
        for difference in differences
    )
    answers().show(table(title, ("topic", "found", "partitions", "options"), rows))
