"""`orderflow up`: the whole pipeline in the foreground, with a live status."""

import threading
import time
from contextlib import ExitStack
from typing import Annotated, Final

import typer

from orderflow.cli.context import settings as read_settings
from orderflow.cli.output import (
    Output,
    OutputOption,
    Picture,
    Styled,
    errors,
    picture,
    print_json,
    table,
)
from orderflow.cli.progress import progress_bars
from orderflow.lag import LagMeter, Sample
from orderflow.pipeline import Pipeline, Roles, running_pipeline, stop_on_signals
from orderflow.supervisor import Child
from runtime.topic_admin import topics_of

LOOK_EVERY_S: Final = 0.25
MEASURE_EVERY_S: Final = 1.0
LINE_EVERY_S: Final = 10.0
LAST_WORDS: Final = 200


def up(
    processors: Annotated[int, typer.Option(min=1, max=64, help="Processor processes.")] = 1,
    saga_processors: Annotated[
        int, typer.Option(min=1, max=64, help="Saga processor processes.")
    ] = 1,
    projectors: Annotated[int, typer.Option(min=1, max=64, help="Projector processes.")] = 1,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run everything until Ctrl-C: servers (unless the environment names some), topics, roles.

    With -o json one document with the addresses is printed once everything has been started.
    """
    settings = read_settings()
    with ExitStack() as stack:
        with progress_bars() as bars, bars.step("Starting") as step:
            roles = Roles(processors, saga_processors, projectors)
            running = running_pipeline(settings, roles, step.update)
            pipeline = stack.enter_context(running)
        stopping = stack.enter_context(stop_on_signals())
        if output is Output.JSON:
            print_json(_addresses(pipeline))
        if errors.console.is_terminal:
            _watch_live(pipeline, stopping)
        else:
            _watch_in_lines(pipeline, stopping)
        errors.say("Stopping: roles first, then the servers.")
    errors.say("Stopped.")


def _addresses(pipeline: Pipeline) -> dict[str, object]:
    """Where everything is. The password of a Redis URL is not shown."""
    settings = pipeline.settings
    return {
        "kafka_bootstrap_servers": settings.kafka_bootstrap_servers,
        "redis_url": None if pipeline.servers is None else pipeline.servers.redis.url,
        "embedded": pipeline.servers is not None,
        "home": str(settings.home.absolute()),
        "topic_prefix": settings.topic_prefix,
        "pids": {status.name: status.pid for status in pipeline.supervisor.statuses()},
    }


class _Board:
    """The status as one picture; measures at most once in MEASURE_EVERY_S."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._meter = LagMeter(pipeline.settings)
        self._topics = len(list(topics_of(pipeline.settings).specs()))
        self._sample: Sample | None = None
        self._rate = 0.0
        self._measured_at = -MEASURE_EVERY_S

    def refresh(self) -> None:
        """Measures anew when it is time to."""
        now = time.monotonic()
        if now - self._measured_at < MEASURE_EVERY_S:
            return
        before, self._sample = self._sample, self._meter.try_measure()
        if before is not None and self._sample is not None:
            self._rate = (self._sample.decided - before.decided) / (now - self._measured_at)
        self._measured_at = now

    def picture(self) -> Picture:
        """For a terminal."""
        settings = self._pipeline.settings
        redis = (
            self._pipeline.servers.redis.url if self._pipeline.servers else "as set in REDIS_URL"
        )
        facts = (
            ("Kafka", settings.kafka_bootstrap_servers),
            ("Redis", redis),
            ("Topics", f"{self._topics}, prefix {settings.topic_prefix}"),
            ("Home", str(settings.home.absolute())),
            ("Commands", self._commands()),
            ("Views", self._views()),
        )
        children = [(child.status(), _state(child)) for child in self._pipeline.supervisor.children]
        rows = (
            (status.name, str(status.pid or "-"), state, status.log) for status, state in children
        )
        roles = table(None, ("role", "pid", "state", "log"), rows)
        return picture(facts, roles, "Ctrl-C stops everything.")

    def line(self) -> str:
        """The same in a line, for a log."""
        roles = ", ".join(
            f"{child.name} {_state(child).text}" for child in self._pipeline.supervisor.children
        )
        return f"{roles}; commands {self._commands()}; views {self._views()}"

    def _commands(self) -> str:
        if self._sample is None:
            return "no figures from the broker"
        sample = self._sample
        return f"{sample.decided:,} decided, {self._rate:,.0f}/s, {sample.waiting:,} waiting"

    def _views(self) -> str:
        if self._sample is None:
            return "no figures"
        lags = self._sample.view_lags
        return ", ".join(
            f"{name} up to date" if lag == 0 else f"{name} {lag:,} behind"
            for name, lag in lags.items()
        )


def _state(child: Child) -> Styled:
    status = child.status()
    if status.running:
        again = f", restarted {status.restarts} times" if status.restarts else ""
        return Styled(f"running{again}", "green")
    said = child.last_words().rpartition("\n")[2][-LAST_WORDS:]
    return Styled(f"ended with {status.last_exit}, starts again soon: {said}", "red")


def _watch_live(pipeline: Pipeline, stopping: threading.Event) -> None:
    board = _Board(pipeline)
    with errors.live(board.picture()) as live:
        while not stopping.wait(LOOK_EVERY_S):
            pipeline.look_after()
            board.refresh()
            live.update(board.picture(), refresh=True)


def _watch_in_lines(pipeline: Pipeline, stopping: threading.Event) -> None:
    board = _Board(pipeline)
    told_at, told_restarts = -LINE_EVERY_S, 0
    while not stopping.wait(LOOK_EVERY_S):
        pipeline.look_after()
        restarts = sum(status.restarts for status in pipeline.supervisor.statuses())
        if time.monotonic() - told_at < LINE_EVERY_S and restarts == told_restarts:
            continue
        board.refresh()
        errors.say(board.line())
        told_at, told_restarts = time.monotonic(), restarts
