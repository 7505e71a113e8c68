"""`orderflow sync`: the views brought to other systems. `sql`: into a database, by polling."""

import logging
import os
from collections.abc import Iterable
from typing import Annotated

import typer

from orderflow.cli.context import connected
from orderflow.cli.exits import Refused
from orderflow.cli.output import Output, OutputOption, answers, print_json, table
from orderflow.cli.progress import pass_reporter, progress_bars
from orderflow.roles import stop_with_parent
from runtime.private_files import OWNER_ONLY, secure_home
from runtime.role import log_to_stderr
from runtime.settings import Settings
from sync import Moved, run_sync, sync_once
from sync.cursor import WHY
from sync.target import address

app = typer.Typer(help="Bring the views to other systems.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///FILE or postgresql://USER@HOST/DATABASE. Default: ORDERFLOW_SYNC_URL, which, unlike"
        " an option, does not show a password to others on this machine; else a file in ORDERFLOW_HOME.",
        show_default=False,
    ),
]
IntervalOption = Annotated[
    float, typer.Option(min=0.01, max=86_400, help="Pause between two polls, seconds.")
]
OnceOption = Annotated[
    bool, typer.Option("--once", help="Bring the database up to date and end, as for cron.")
]


@app.callback()
def sync() -> None:
    """Bring the views to other systems."""


@app.command("sql")
def sql(
    url: UrlOption = None,
    interval: IntervalOption = 1.0,
    once: OnceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Keep tables in a SQL database equal to the views, by polling.

    It may be killed at any time and goes on where it was. -o is for --once, which says what it did.
    """
    stop_with_parent()
    settings = connected(kafka=False)
    os.umask(OWNER_ONLY)  # a SQLite file may lie anywhere
    target = address(url or _default(settings))
    with progress_bars() as bars, pass_reporter(bars) as told:
        log_to_stderr(settings)
        if not once:
            run_sync(settings, target, interval, told)
            return
        logging.getLogger("sync").setLevel(logging.WARNING)  # what was done is the answer
        moved = sync_once(settings, target, told)
    if output is Output.JSON:
        print_json(moved)
    else:
        _show(moved)


def _show(moved: Iterable[Moved]) -> None:
    columns = ("view", "rows written", "rows deleted", "all rows read, because")
    rows = (
        (one.view, one.written, one.deleted, WHY[one.passed] if one.passed else None)
        for one in moved
    )
    answers().show(table("Synchronised", columns, rows))


def _default(settings: Settings) -> str:
    if settings.sync_url is not None:
        return settings.sync_url.get_secret_value()
    try:
        secure_home(settings.home)
    except OSError as error:
        raise Refused(f"{settings.home}: {error.strerror}", "Set ORDERFLOW_HOME.") from None
    return f"sqlite:///{settings.home.resolve()}/views.sqlite3"
