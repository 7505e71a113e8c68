"""`orderflow demo`: a generated shop through everything there is, and the proof that it came out right."""

import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from orderflow.cli.arguments import MAX_COUNT
from orderflow.cli.context import settings as read_settings
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import Output, OutputOption, Styled, answers, errors, print_json
from orderflow.cli.progress import Bars, progress_bars, progress_reporter
from orderflow.cli.sagas import show_timeline
from orderflow.cli.shown import (
    RebuildAnswer,
    Snapshot,
    show_differences,
    show_rebuild,
    show_rejections,
    show_snapshot,
    take_snapshot,
)
from orderflow.lag import wait_for_views
from orderflow.pipeline import Pipeline, Roles, running_pipeline
from orderflow.shop.check import Difference, differences
from orderflow.shop.expectation import Tally
from orderflow.shop.feeder import Feeder, FeedReport
from orderflow.shop.generator import ShopPlan, generate
from orderflow.shop.planned import ExpectedViews
from orderflow.shop.sample_orders import Sample, place_samples
from readmodels import Queries, rebuild
from runtime.client import CommandClient
from runtime.settings import Settings

OUTCOME_WITHIN_S: Final = 60.0
VIEWS_WITHIN_S: Final = 60.0
MAX_ORDERS: Final = 100_000_000
SAGA_TIMEOUT_MS: Final = 500
"""Short, so that a timeout can be watched."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo comes to; the JSON answer. ``seconds`` are those of each step."""

    topic_prefix: str
    commands: int
    accepted: int
    repeated: int
    rejected: dict[str, int]
    surprises: list[str]
    views: Snapshot
    differences: list[Difference]
    rebuild: RebuildAnswer
    differences_after_rebuild: list[Difference]
    placed: list[Sample]
    seconds: dict[str, float]

    @property
    def good(self) -> bool:
        """Whether everything came out as it had to."""
        wrong = self.surprises or self.differences or self.differences_after_rebuild
        return not wrong and self.rebuild.proven and all(sample.good for sample in self.placed)


def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, max=MAX_ORDERS, help="Orders to generate.")] = 2_000,
    users: Annotated[int, typer.Option(min=1, max=MAX_ORDERS, help="Users who order.")] = 100,
    skus: Annotated[int, typer.Option(min=1, max=MAX_ORDERS, help="SKUs on offer.")] = 50,
    bad: Annotated[float, typer.Option(min=0, max=0.9, help="Share of bad commands.")] = 0.05,
    seed: Annotated[
        int, typer.Option(min=-MAX_COUNT, max=MAX_COUNT, help="The same seed gives the same shop.")
    ] = 7,
    home: Annotated[
        Path | None, typer.Option(help="Keep everything here instead of a temporary folder.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start everything, feed a generated shop, show the views, rebuild them from zero, compare,
    stop.

    Exit code 1 when anything is not as the shop was planned. Topics and keys get a prefix of their
    own; on servers that the environment names they are left there.
    """
    plan = ShopPlan(orders=orders, users=users, skus=skus, bad_share=bad, seed=seed)
    with _stopping_on_sigterm(), ExitStack() as stack:
        settings = _settings(stack.enter_context(_place(home)))
        bars = stack.enter_context(progress_bars())
        began = time.monotonic()
        with bars.step("Starting servers and roles") as step:
            pipeline = stack.enter_context(running_pipeline(settings, Roles(), step.update))
        try:
            report = _run(pipeline, plan, bars, time.monotonic() - began)
        except TimeoutError:
            _show_logs(pipeline)  # a role that crashes again and again says there why
            raise
    if output is Output.JSON:
        print_json(report)
    else:
        _show(report)
    if not report.good:
        raise quit_with(Exit.NO)


def _settings(home: Path) -> Settings:
    """The environment's settings, in a place of their own on whatever servers there are."""
    prefix = f"demo-{uuid.uuid4().hex[:8]}"
    changes = {"home": home, "topic_prefix": prefix, "saga_timeout_ms": SAGA_TIMEOUT_MS}
    return read_settings().model_copy(update=changes)


@contextmanager
def _place(home: Path | None) -> Iterator[Path]:
    if home is not None:
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="orderflow-demo-") as temporary:
        yield Path(temporary)


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: everything is stopped on the way out."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(pipeline: Pipeline, plan: ShopPlan, bars: Bars, started_s: float) -> DemoReport:
    settings, tally = pipeline.settings, Tally()
    seconds = {"start": round(started_s, 1)}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - began, 1)

    with timed("commands"):
        fed = _feed(pipeline, plan, tally, bars)
    with timed("views"), bars.step("Waiting for the views") as step:
        wait_for_views(settings, VIEWS_WITHIN_S, step.update, pipeline.look_after)
    with timed("check"), Queries(settings) as queries:
        wrong = _check("Checking every view", tally.views, queries, bars)
        views = take_snapshot(queries)
    with timed("rebuild"), bars.step("Rebuilding from offset zero") as step:
        rebuilt = rebuild(settings, on_progress=progress_reporter(step))
    with timed("check again"), Queries(settings) as queries:
        wrong_again = _check("Checking the rebuilt views", tally.views, queries, bars)
    with timed("placed orders"), bars.step("Placing three orders in one call each") as step:
        samples = place_samples(
            settings, pipeline.look_after, lambda title: step.update(title, None)
        )
    return DemoReport(
        topic_prefix=settings.topic_prefix,
        commands=fed.sent,
        accepted=fed.accepted,
        repeated=fed.repeated,
        rejected=dict(fed.rejected),
        surprises=[str(surprise) for surprise in fed.surprises],
        views=views,
        differences=wrong,
        rebuild=RebuildAnswer.of(rebuilt),
        differences_after_rebuild=wrong_again,
        placed=samples,
        seconds=seconds,
    )


def _feed(pipeline: Pipeline, plan: ShopPlan, tally: Tally, bars: Bars) -> FeedReport:
    began = time.monotonic()
    with bars.step("Sending the shop's commands") as step:

        def told(report: FeedReport) -> None:
            pipeline.look_after()
            rate = report.answered / (time.monotonic() - began)
            refused = report.rejected.total()
            note = f"{report.answered:,} decided, {refused:,} refused, {rate:,.0f}/s"
            step.update(note, min(1.0, len(tally.views.orders) / plan.orders))

        with CommandClient(pipeline.settings) as client:
            return Feeder(client, OUTCOME_WITHIN_S, told).feed(tally.watch(generate(plan)))


def _check(title: str, expected: ExpectedViews, queries: Queries, bars: Bars) -> list[Difference]:
    with bars.step(title) as step:
        return differences(
            expected, queries, lambda done, of: step.update(f"{done:,} of {of:,}", done / of)
        )


def _show_logs(pipeline: Pipeline) -> None:
    for child in pipeline.supervisor.children:
        errors.heading(f"end of {child.log.name}")
        errors.block(child.last_words())


def _show(report: DemoReport) -> None:
    show_snapshot(report.views)
    show_rejections(report.rejected)
    show_rebuild(report.rebuild)
    show_differences("Different from the plan", report.differences)
    show_differences("Different from the plan after the rebuild", report.differences_after_rebuild)
    out = answers()
    for sample in report.placed:
        out.heading(sample.title)
        if sample.saga is not None:
            show_timeline(sample.saga)
        if not sample.good:
            out.say(Styled(f"{sample.placement}, not {sample.expected}", "red"))
    for surprise in report.surprises:
        out.say(Styled(surprise, "red"))
    steps = ", ".join(f"{name} {took} s" for name, took in report.seconds.items())
    out.say(
        f"{report.commands:,} commands: {report.accepted:,} accepted, "
        f"{report.repeated:,} repeated, {sum(report.rejected.values()):,} rejected. {steps}.",
    )
    if report.good:
        good = (
            "Every outcome, order, user and SKU is as planned, and the views rebuilt from offset zero "
            "are the same."
        )
        out.say(Styled(good, "bold green"))
    else:
        out.say(Styled("Something is not as planned, see above.", "bold red"))
