"""`orderflow import`: orders of other systems, through the commands like everybody's."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import Output, OutputOption, answers, money, print_json
from orderflow.cli.progress import Bars, progress_bars
from orderflow.cli.shown import show_differences, show_rejections
from orderflow.lag import wait_for_views
from orderflow.shop.check import Difference, differences
from orderflow.shop.feeder import Feeder, FeedReport
from orderflow.shop.online_retail import CURRENCY, RetailPlan
from orderflow.shop.planned import ExpectedViews
from orderflow.shop.retail_truth import truth_of
from readmodels import Queries
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.settings import Settings

VIEWS_WITHIN_S: Final = 300.0

app = typer.Typer(help="Bring orders of other systems in.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Bring orders of other systems in."""
    # Without a callback Typer would make the only command the whole group.


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import comes to; the JSON answer. ``withheld``: reservations of refused orders, not sent."""

    rows: int
    invoices: int
    commands: int
    accepted: int
    rejected: dict[str, int]
    surprises: list[str]
    withheld: int
    orders: int
    users: int
    skus: int
    amount: int
    differences: list[Difference]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the views say what the file says."""
        return not (self.surprises or self.differences)


@app.command("online-retail")
def online_retail(
    file: Annotated[Path, typer.Argument(help="The CSV file, gzipped or not.")],
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for an outcome.")] = 60.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Import the UCI Online Retail file and reconcile the views with it; exit code 1 if they
    differ.

    Needs a processor and a projector, e.g. `orderflow up` in another terminal. Importing a file
    again within 48 hours changes nothing: its command ids follow from the file.
    """
    began = time.monotonic()
    with progress_bars() as bars:
        with bars.step("Surveying the file") as step:
            plan = RetailPlan(file)
            step.update(f"{plan.survey.rows:,} lines, {len(plan.survey.lines):,} invoices")
        settings = connected()
        topic_admin.require(settings)
        fed = _feed(settings, plan, timeout, bars)
        with bars.step("Waiting for the views") as step:
            wait_for_views(settings, VIEWS_WITHIN_S, step.update)
        with bars.step("Reading the file on its own") as step:
            truth = truth_of(file)
        wrong = _reconcile(settings, truth, bars)
    report = _report(plan, fed, truth, wrong, time.monotonic() - began)
    if output is Output.JSON:
        print_json(report)
    else:
        _show(report)
    if not report.good:
        raise quit_with(Exit.NO)


def _feed(settings: Settings, plan: RetailPlan, timeout: float, bars: Bars) -> FeedReport:
    with bars.step("Sending commands") as step:
        row = 0

        def at_row(number: int) -> None:
            nonlocal row
            row = number

        began = time.monotonic()

        def told(report: FeedReport) -> None:
            rate = report.answered / (time.monotonic() - began)
            note = f"{report.answered:,} decided, {rate:,.0f}/s"
            step.update(note, min(1.0, row / plan.survey.rows))

        with CommandClient(settings) as client:
            return Feeder(client, timeout, told).feed(plan.commands(at_row))


def _reconcile(settings: Settings, truth: ExpectedViews, bars: Bars) -> list[Difference]:
    with bars.step("Reconciling") as step, Queries(settings) as queries:
        return differences(
            truth, queries, lambda done, of: step.update(f"{done:,} of {of:,}", done / of)
        )


def _report(
    plan: RetailPlan,
    fed: FeedReport,
    truth: ExpectedViews,
    wrong: list[Difference],
    seconds: float,
) -> ImportReport:
    return ImportReport(
        rows=plan.survey.rows,
        invoices=plan.invoices,
        commands=fed.sent,
        accepted=fed.accepted,
        rejected=dict(fed.rejected),
        surprises=[str(surprise) for surprise in fed.surprises],
        withheld=plan.withheld,
        orders=len(truth.orders),
        users=len(truth.users),
        skus=len(truth.stock),
        amount=sum(order.total for order in truth.orders.values()),
        differences=wrong,
        seconds=round(seconds, 1),
    )


def _show(report: ImportReport) -> None:
    show_rejections(report.rejected)
    show_differences("Different from the file", report.differences)
    out = answers()
    for surprise in report.surprises:
        out.print(surprise, style="red", markup=False, soft_wrap=True)
    out.print(
        f"{report.rows:,} lines, {report.invoices:,} invoices, {report.commands:,} commands: "
        f"{report.accepted:,} accepted, {sum(report.rejected.values()):,} rejected; "
        f"{report.withheld:,} reservations of refused orders withheld; {report.seconds} s.",
        highlight=False,
        soft_wrap=True,
    )
    if report.good:
        out.print(
            f"[bold green]{report.orders:,} orders over {money(report.amount, CURRENCY)}, "
            f"{report.users:,} users and {report.skus:,} SKUs are as in the file.[/]",
            highlight=False,
            soft_wrap=True,
        )
    else:
        out.print("[bold red]Something is not as in the file, see above.[/]")
