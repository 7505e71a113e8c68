"""`orderflow consistency`: is every view where its topic is? And wait until it is."""

from contextlib import closing
from typing import Annotated, Any, Final

import typer

from orderflow.cli.arguments import MAX_SECONDS
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, quit_with
from orderflow.cli.output import answers, moment, print_json, table
from orderflow.cli.progress import progress_bars
from readmodels.consistency import Consistency, ViewConsistency
from readmodels.keys import verified_key
from readmodels.unreadable import ReadableRunner, parsed
from runtime.redis import pooled
from runtime.settings import Settings
from schemas.decoding import decoder
from verification.role import Verified

_decode_verified: Final = decoder(Verified)


def consistency(
    *,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_SECONDS, help="Wait so many seconds for what is in the topics now."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Where every view is, where its topic ends, and how long it has been behind. Exit code 1 if one is;
    with --wait, 4 if it still is after that time.
    """
    settings = connected()
    with Consistency(settings) as views:
        if wait is not None:
            with progress_bars() as bars, bars.step("Waiting for the views") as step:
                views.wait_until_consistent(wait, step.update)
        found = views.status()
    verified = _verified(settings)
    consistent = all(one.consistent for one in found)
    if json:
        print_json(_document(found, consistent, verified))
    else:
        _show(found, verified)
    if wait is None and not consistent:
        raise quit_with(Exit.NO)


def _verified(settings: Settings) -> Verified | None:
    """What the verifier's last pass came to, if one runs."""
    key = verified_key(settings.topic_prefix)
    with closing(pooled(settings)) as redis:
        stored = ReadableRunner(redis).run([("GET", key)])[0]
    return parsed(key, lambda: _decode_verified(stored)) if stored else None


def _document(
    found: tuple[ViewConsistency, ...], consistent: bool, verified: Verified | None
) -> dict[str, Any]:
    views = [
        {
            "view": one.view,
            "generation": one.generation,
            "consistent": one.consistent,
            "events": one.events,
            "seconds": round(one.seconds, 3),
            "partitions": one.partitions,
        }
        for one in found
    ]
    return {"consistent": consistent, "views": views, "verified": verified}


def _show(found: tuple[ViewConsistency, ...], verified: Verified | None) -> None:
    rows = (
        (
            one.view,
            one.generation,
            sum(part.position for part in one.partitions),
            sum(part.end for part in one.partitions),
            one.events,
            f"{one.seconds:.1f}",
        )
        for one in found
    )
    out = answers()
    columns = ("view", "generation", "positions", "ends", "events behind", "seconds behind")
    out.show(table("Consistency", columns, rows))
    if verified is not None:
        out.say(
            f"Last verified {moment(verified.at_ms)}: {verified.looked_at:,} looked at, "
            f"{verified.drifts:,} wrong.",
        )
