"""`orderflow import`: orders of other systems, through the commands like everybody's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from orderflow.cli.arguments import MAX_COUNT, MAX_SECONDS
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, Styled, answers, money, print_json, table
from orderflow.cli.place import CoordinationOption
from orderflow.cli.progress import Bars, progress_bars
from orderflow.cli.shown import show_differences, show_rejections
from orderflow.lag import wait_for_views
from orderflow.shop.check import Difference, Progress, differences
from orderflow.shop.feeder import Feeder, FeedReport
from orderflow.shop.online_retail import CURRENCY, RetailPlan
from orderflow.shop.placed_report import PlacingReport, placing_report
from orderflow.shop.placed_truth import order_differences, placed_truth
from orderflow.shop.planned import ExpectedViews
from orderflow.shop.retail_orders import RetailOrders, read_orders
from orderflow.shop.retail_placing import Endings, Way, place_all, registrations
from orderflow.shop.retail_truth import truth_of
from readmodels import Queries
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.settings import Settings
from schemas.money import MAX_QUANTITY

MAX_AT_ONCE: Final = 10_000
VIEWS_WITHIN_S: Final = 300.0

Compare = Callable[[Queries, Progress], list[Difference]]

app = typer.Typer(help="Bring orders of other systems in.", no_args_is_help=True)


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
    timeout: Annotated[
        float, typer.Option(min=1, max=MAX_SECONDS, help="Seconds to wait for an outcome.")
    ] = 60.0,
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
        wrong = _reconcile(settings, bars, "Reconciling", partial(differences, truth))
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


def _reconcile(settings: Settings, bars: Bars, what: str, compare: Compare) -> list[Difference]:
    with bars.step(what) as step, Queries(settings) as queries:
        return compare(queries, lambda done, of: step.update(f"{done:,} of {of:,}", done / of))


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
        out.say(Styled(surprise, "red"))
    out.say(
        f"{report.rows:,} lines, {report.invoices:,} invoices, {report.commands:,} commands: "
        f"{report.accepted:,} accepted, {sum(report.rejected.values()):,} rejected; "
        f"{report.withheld:,} reservations of refused orders withheld; {report.seconds} s.",
    )
    if report.good:
        good = (
            f"{report.orders:,} orders over {money(report.amount, CURRENCY)}, "
            f"{report.users:,} users and {report.skus:,} SKUs are as in the file."
        )
        out.say(Styled(good, "bold green"))
    else:
        out.say(Styled("Something is not as in the file, see above.", "bold red"))


Pieces = Annotated[
    int, typer.Option(min=0, max=MAX_QUANTITY, help="Pieces of each SKU before the first order.")
]
Share = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the orders whose payment is declined.")
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_COUNT, metavar="INVOICES", help="Only the file's first so many."),
]


@app.command("place-online-retail")
def place_online_retail(
    file: Annotated[Path, typer.Argument(help="The CSV file, gzipped or not.")],
    *,
    opening_stock: Pieces = 2_000,
    declined: Share = 0.05,
    coordination: CoordinationOption = "orchestration",
    limit: Limit = None,
    at_once: Annotated[
        int, typer.Option(min=1, max=MAX_AT_ONCE, help="Orders under way at a time.")
    ] = 200,
    timeout: Annotated[
        float, typer.Option(min=1, max=MAX_SECONDS, help="Seconds to wait for an order.")
    ] = 300.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Place an order for every invoice of the UCI Online Retail file, as `place-order` does, and
    reconcile the views with how the orders ended; exit code 1 if they differ.

    Needs every role, e.g. `orderflow up` in another terminal, and a shop in which nothing was sold
    before. Placing a file again in the same way within 48 hours changes nothing.
    """
    way = Way(opening_stock, declined, coordination, at_once, timeout)
    with progress_bars() as bars:
        with bars.step("Reading the file") as step:
            orders = read_orders(file, limit)
            step.update(f"{orders.invoices:,} invoices, {len(orders.orders):,} orders")
        settings = connected()
        topic_admin.require(settings)
        _register(settings, orders, way, bars)
        endings = _place(settings, orders, way, bars)
        with bars.step("Waiting for the views") as step:
            wait_for_views(settings, VIEWS_WITHIN_S, step.update)
        with bars.step("Reading the file on its own") as step:
            truth = placed_truth(file, endings.placed, opening_stock, limit)
        by_order = partial(order_differences, truth, endings.placements)
        wrong = [
            *_reconcile(settings, bars, "Reconciling", partial(differences, truth.views)),
            *_reconcile(settings, bars, "Reconciling line by line", by_order),
        ]
    report = placing_report(orders, way, endings, truth, wrong)
    if output is Output.JSON:
        print_json(report)
    else:
        _show_placing(report)
    if wrong:
        raise quit_with(Exit.NO)


def _register(settings: Settings, orders: RetailOrders, way: Way, bars: Bars) -> None:
    with bars.step("Registering users and SKUs") as step, CommandClient(settings) as client:
        report = Feeder(client, way.timeout).feed(registrations(orders, way))
        step.update(f"{report.accepted:,} registered")
    if report.surprises:
        raise Refused(
            f"{report.surprised:,} users and SKUs are not as this file begins: {report.surprises[0]}",
            "Use a shop in which nothing was sold: an ORDERFLOW_TOPIC_PREFIX of its own.",
            Exit.NO,
        )


def _place(settings: Settings, orders: RetailOrders, way: Way, bars: Bars) -> Endings:
    with bars.step("Placing orders") as step:
        return place_all(
            settings,
            orders.orders,
            way,
            lambda so_far: step.update(
                f"{so_far}, {so_far.rate:,.0f}/s", so_far.ended / len(orders.orders)
            ),
        )


def _show_placing(report: PlacingReport) -> None:
    out = answers()
    ends = {"placed": report.placed, **report.not_placed, "still running": report.still_running}
    rows = [(end, count) for end, count in ends.items() if count]
    out.show(table("Orders", ("ended", "orders"), rows))
    out.show(table("Left out", ("reason", "lines"), list(report.left_out.items())))
    show_differences("Different from how the orders ended", report.differences)
    out.say(
        f"{report.rows:,} lines, {report.invoices:,} invoices: {report.orders:,} orders of "
        f"{report.lines:,} lines ended in {report.seconds} s, {report.orders_per_second}/s.",
    )
    if report.differences:
        out.say(Styled("Something is not as the orders ended, see above.", "bold red"))
    else:
        good = (
            f"{report.placed:,} orders over {money(report.amount, CURRENCY)}, "
            f"{report.users:,} users and {report.skus:,} SKUs are as the orders ended."
        )
        out.say(Styled(good, "bold green"))
