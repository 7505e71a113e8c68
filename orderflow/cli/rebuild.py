"""`orderflow rebuild`: the views anew from offset zero, compared with the live ones, then switched to; back
to the ones before; and single aggregates anew, in the live views.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orderflow.cli.arguments import MAX_COUNT, checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, answers, plain, print_json, table, write_json
from orderflow.cli.progress import progress_bars, progress_reporter
from orderflow.cli.shown import RebuildAnswer, show_rebuild
from readmodels import Plan, discard_previous, mend, rollback
from readmodels import rebuild as rebuild_views
from readmodels.views import VIEWS
from runtime.settings import Settings

MAX_PROCESSES: Final = 1_024
"""As many as a topic may have partitions."""


def rebuild(
    *,
    view: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Switch although old and new differ.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write every difference, with both values, to this file.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build, compare, report, discard; do not switch.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not go on with what an earlier rebuild has left.")
    ] = False,
    throttle: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_COUNT, help="Read no more records a second than this."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PROCESSES,
            help="Read with so many processes, at most one a partition (with --throttle: one). By default"
            " one a core, if there is enough to read.",
            show_default=False,
        ),
    ] = None,
    aggregate: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Only this one, by name and id, in the live views: order o-1."),
    ] = None,
    roll_back: Annotated[
        bool, typer.Option("--rollback", help="Make the views live that were so before.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard-previous", help="Remove what --rollback would go back to.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Rebuild the views beside the live ones, compare at one position, and switch if they are equal.

    If they differ, the live ones serve on, the new ones stay for inspection, and the exit code is 1: look at
    --report, then rebuild with --accept-differences (what the topics say is right) or correct the code.
    Interrupted, it goes on the next time where it was.
    """
    _check(view)
    actions = [aggregate is not None, roll_back, discard]
    plan = Plan(accept_differences, dry_run, fresh, throttle, processes)
    if sum(actions) > 1 or (any(actions) and (plan != Plan() or report is not None)):
        raise Refused(
            "--aggregate, --rollback and --discard-previous each stand alone, at most with --view",
            "Give one of them.",
        )
    settings = connected()
    logging.getLogger("readmodels").setLevel(logging.WARNING)
    if aggregate is not None:
        _rebuild_one(settings, *aggregate, view, output)
    elif roll_back:
        _roll_back(settings, view, output)
    elif discard:
        keys = discard_previous(settings, view or None)
        _answer(output, {"keys_removed": keys}, f"{keys:,} keys of previous generations removed.")
    else:
        _rebuild_all(settings, view, plan, report, output)


def _rebuild_all(
    settings: Settings, view: list[str] | None, plan: Plan, file: Path | None, output: Output
) -> None:
    with progress_bars() as bars, bars.step("Rebuilding from offset zero") as step:
        found = rebuild_views(settings, view or None, progress_reporter(step), plan)
    report = RebuildAnswer.of(found)
    if file is not None:
        write_json(file, report)
    if output is Output.JSON:
        print_json(report)
    else:
        show_rebuild(report)
        by = "" if report.processes == 1 else f", by {report.processes} processes"
        answers().say(
            f"{report.records:,} records in {report.seconds} s{by}; {report.unreadable:,} unreadable, "
            f"{report.keys_removed:,} old keys removed. {_ending(report, plan)}",
        )
    if not report.equal:
        raise quit_with(Exit.NO)


def _ending(report: RebuildAnswer, plan: Plan) -> str:
    if report.switched:
        return "The new views are live; --rollback goes back."
    if plan.dry_run:
        return "A dry run: nothing was switched, nothing is left of it."
    return "Not switched. --report FILE names the differences; --accept-differences switches."


def _rebuild_one(
    settings: Settings, name: str, aggregate_id: str, views: list[str] | None, output: Output
) -> None:
    checked_id("ID", aggregate_id)
    wanted = [v for v in VIEWS if v.aggregate == name and (not views or v.name in views)]
    if not wanted:
        known = ", ".join(sorted({one.aggregate for one in VIEWS}))
        raise Refused(f"no view is made from the aggregate {name!r}", f"There are: {known}.")
    found = [mended for one in wanted for mended in mend(settings, one.name, [aggregate_id])]
    rows = [(one.view, one.aggregate_id, one.result, one.version) for one in found]
    if output is Output.JSON:
        print_json(found)
    else:
        answers().show(table("Rebuilt", ("view", "aggregate", "result", "version"), rows))


def _roll_back(settings: Settings, views: list[str] | None, output: Output) -> None:
    with progress_bars() as bars, bars.step("Bringing the previous views up to date") as step:
        found = rollback(settings, views or None, progress_reporter(step))
    rows = [(one.view, f"{one.from_generation} → {one.to_generation}") for one in found]
    if output is Output.JSON:
        print_json(found)
    else:
        answers().show(table("Rolled back", ("view", "generation"), rows))


def _answer(output: Output, document: Any, sentence: str) -> None:
    if output is Output.JSON:
        print_json(plain(document))
    else:
        answers().say(sentence)


def _check(views: list[str] | None) -> None:
    known = [view.name for view in VIEWS]
    for name in views or ():
        if name not in known:
            raise Refused(f"there is no view {name!r}", f"There are: {', '.join(known)}.")
