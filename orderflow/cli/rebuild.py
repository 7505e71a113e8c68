"""`orderflow rebuild`: the views anew from offset zero, compared with the live ones, then switched to."""

import logging
from typing import Annotated

import typer

from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, answers, print_json
from orderflow.cli.progress import progress_bars, progress_reporter
from orderflow.cli.shown import RebuildAnswer, show_rebuild
from readmodels import rebuild as rebuild_views
from readmodels.views import VIEWS


def rebuild(
    view: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Rebuild the views beside the live ones, compare, and switch; exit code 1 if they differed.

    Interrupted, it leaves the live views as they are. The rebuilt views are live afterwards in any
    case: what the topics say is right.
    """
    _check(view)
    settings = connected()
    logging.getLogger("readmodels").setLevel(logging.WARNING)
    with progress_bars() as bars, bars.step("Rebuilding from offset zero") as step:
        report = RebuildAnswer.of(rebuild_views(settings, view or None, progress_reporter(step)))
    if output is Output.JSON:
        print_json(report)
    else:
        show_rebuild(report)
        answers().print(
            f"{report.records:,} records in {report.seconds} s; {report.unreadable:,} unreadable, "
            f"{report.keys_removed:,} old keys removed.",
            highlight=False,
            soft_wrap=True,
        )
    if not report.equal:
        raise quit_with(Exit.NO)


def _check(views: list[str] | None) -> None:
    known = [view.name for view in VIEWS]
    for name in views or ():
        if name not in known:
            raise Refused(f"there is no view {name!r}", f"There are: {', '.join(known)}.")
