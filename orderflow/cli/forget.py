"""`orderflow forget`: makes personal data unreadable everywhere, and says what is left and until when."""

from typing import Annotated

import msgspec
import typer

from orderflow.cli.arguments import MAX_SECONDS, checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import Output, OutputOption, answers, moment, print_json, table
from orderflow.cli.progress import progress_bars, progress_reporter
from orderflow.cli.send import show_outcome
from orderflow.forgetting import Remainder, erase_from_redis, forget_user, remains
from schemas.records import Outcome

app = typer.Typer(help="Make personal data unreadable, for good.", no_args_is_help=True)


class ForgetAnswer(msgspec.Struct, frozen=True):
    """What came of it. ``remains`` is empty where the command was rejected."""

    outcome: Outcome
    remains: tuple[Remainder, ...]


@app.callback()
def whom() -> None:
    """Make personal data unreadable, for good."""


@app.command()
def user(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the user.")],
    *,
    by: Annotated[str, typer.Option(help="Your id; it stands in the history for ever.")],
    reason: Annotated[
        str, typer.Option(help="A code or the number of a request; no words about the person.")
    ] = "request",
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=MAX_SECONDS, help="Seconds to wait for the outcome, then for the views."
        ),
    ] = 30.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget a user: name, e-mail address and reasons go; the id, orders, stock and money stay.

    It cannot be undone. Repeating it changes nothing and tells again what is left. Exit code 1 means that it
    was rejected, 4 that the outcome or the views did not come in time: repeat it.
    """
    who = checked_id("ID", user_id), checked_id("--by", by), checked_id("--reason", reason)
    settings = connected()
    with progress_bars() as bars:
        with bars.step("Forgetting"):
            outcome = forget_user(settings, *who, timeout)
        left: tuple[Remainder, ...] = ()
        if outcome.accepted:
            with bars.step("Erasing from what Redis keeps"):
                left = erase_from_redis(settings, user_id, timeout)
            with bars.step("Looking for what is left") as step:
                left += remains(settings, user_id, progress_reporter(step))
    if output is Output.JSON:
        print_json(ForgetAnswer(outcome, left))
    else:
        show_outcome(outcome, output)
    if not outcome.accepted:
        raise quit_with(Exit.NO)
    if output is not Output.JSON:
        _show(left)


def _show(left: tuple[Remainder, ...]) -> None:
    rows = (
        (r.where, r.what, "you remove it" if r.until_ms is None else moment(r.until_ms))
        for r in left
    )
    answers().show(table("What is left", ("where", "what", "until (UTC)"), rows))
    answers().say("docs/DELETION.md says what each of these means.")
