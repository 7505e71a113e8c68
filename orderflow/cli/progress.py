"""Progress on standard error: bars where a terminal shows them, a line now and then where none does."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from rich import progress as rich_progress
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn

from orderflow.cli.output import errors
from readmodels import Progress
from runtime.printable import printable
from sync import PassProgress

LINE_EVERY_S: Final = 5.0


@contextmanager
def progress_bars() -> Iterator["Bars"]:
    """Bars for the steps of a longer job; what is done stays visible."""
    with rich_progress.Progress(
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=errors.console,
        disable=not errors.console.is_terminal,
        refresh_per_second=8,
    ) as progress:
        yield Bars(progress)


class Bars:
    """Steps of a job, one bar each. Where there is no terminal, a line at a step's begin and end."""

    def __init__(self, progress: rich_progress.Progress) -> None:
        self._progress = progress
        self._plain = progress.disable

    @contextmanager
    def step(self, title: str) -> Iterator["Step"]:
        """One step, from here to the end of the block."""
        task = self._progress.add_task(printable(title), total=None, note="")
        step = Step(self._progress, task, title, plain=self._plain)
        step.line("…")
        yield step
        step.finish()


class Step:
    """One step under way."""

    def __init__(
        self, progress: rich_progress.Progress, task: TaskID, title: str, *, plain: bool
    ) -> None:
        self._progress = progress
        self._task = task
        self._title = title
        self._plain = plain
        self._note = ""
        self._told_at = self._began = time.monotonic()

    def update(self, note: str, fraction: float | None = None) -> None:
        """What is going on, and how far (0 … 1) if that is known."""
        self._note = note
        total = None if fraction is None else 1.0
        self._progress.update(
            self._task, note=printable(note), total=total, completed=fraction or 0.0
        )
        if time.monotonic() - self._told_at > LINE_EVERY_S:
            self.line(note)

    def finish(self) -> None:
        """Marks the step as done."""
        self._progress.update(self._task, total=1.0, completed=1.0)
        self._progress.stop_task(self._task)
        self.line(f"{self._note or 'done'} ({time.monotonic() - self._began:.1f} s)")

    def line(self, text: str) -> None:
        """A line of its own, where nobody sees the bars."""
        if self._plain:
            self._told_at = time.monotonic()
            errors.say(f"{self._title}: {text}")


def progress_reporter(step: Step) -> Callable[[Progress], None]:
    """A step as the callback of whoever reads topics: rate, and how long it will still take."""

    def told(progress: Progress) -> None:
        left = (progress.total - progress.done) / progress.rate if progress.rate else 0.0
        note = f"{progress.done:,} of {progress.total:,}, {progress.rate:,.0f}/s, {left:.0f} s left"
        step.update(note, progress.done / progress.total if progress.total else 1.0)

    return told


@contextmanager
def pass_reporter(bars: Bars) -> Iterator[Callable[[PassProgress], None]]:
    """A step for each pass of a synchronisation over all rows of a view; there is one at a time."""
    with ExitStack() as under_way:
        steps: dict[str, Step] = {}

        def told(progress: PassProgress) -> None:
            step = steps.get(progress.view)
            if step is None:
                step = under_way.enter_context(bars.step(f"Reading all of {progress.view}"))
                steps[progress.view] = step
            done = progress.done / progress.total if progress.total else None
            step.update(f"{progress.done:,} of about {progress.total:,} rows", done)
            if progress.ended:
                under_way.pop_all().close()
                steps.clear()

        yield told
