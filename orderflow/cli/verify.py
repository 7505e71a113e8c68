"""`orderflow verify`: do views, states, histories and laws say the same? And mend the views that do not."""

from typing import Annotated, Final

import typer

from orderflow.cli.arguments import MAX_COUNT
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import answers, print_json, table
from orderflow.cli.progress import progress_bars
from readmodels.views import VIEWS
from verification import Drift, Report, Scope
from verification import verify as run

SAMPLE: Final = 1_000
SHOWN: Final = 20
VALUE_SHOWN: Final = 60


def verify(
    *,
    sample: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_COUNT, help="So many aggregates of each view and of each kind."
        ),
    ] = SAMPLE,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    view: Annotated[
        list[str] | None,
        typer.Option(help="Only this view, and no states and laws; may be repeated."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend the views from the log, then look again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Recompute aggregates from the log and compare: views with states, states with histories, states with
    each other. Exit code 1 if something is wrong, and was not repaired.

    May run while everything moves. What can only be seen torn is looked at again, never reported.
    """
    known = [one.name for one in VIEWS]
    if unknown := [name for name in view or () if name not in known]:
        raise Refused(f"there is no view {unknown[0]!r}", f"There are: {', '.join(known)}.")
    scope = Scope(tuple(view) if view else None, None if everything else sample, states=not view)
    settings = connected()
    with progress_bars() as bars, bars.step("Verifying") as step:
        report = run(settings, scope, repair=repair, on_step=step.update)
    if json:
        print_json(report)
    else:
        _show(report)
    if not report.whole:
        raise quit_with(Exit.NO)


def _show(report: Report) -> None:
    out = answers()
    if report.drifts:
        columns = ("level", "where", "what", "key", "expected", "found")
        rows = (_row(one) for one in report.drifts[:SHOWN])
        out.show(table("Drift", columns, rows))
    if len(report.drifts) > SHOWN:
        out.say(f"… and {len(report.drifts) - SHOWN:,} more (--json has them all)")
    out.say(
        f"{report.rows:,} rows and totals, {report.states:,} states, {report.laws:,} by the laws, in "
        f"{report.seconds:.1f} s: {len(report.drifts):,} wrong, {report.repaired:,} repaired, "
        f"{len(report.left):,} left; {report.moving:,} moved all the time.",
    )


def _row(one: Drift) -> tuple[str, ...]:
    expected, found = (str(value)[:VALUE_SHOWN] for value in (one.expected, one.found))
    return (one.level.value, one.where, one.kind.value, one.key, expected, found)
