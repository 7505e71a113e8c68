"""`orderflow webhooks deliveries` and what can be done about single events: once more, passed by, a test."""

import time
from typing import Annotated, Final

import typer

from orderflow.cli.arguments import MAX_SECONDS, checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, answers, moment, print_json, table
from orderflow.cli.send import show_outcome
from orderflow.cli.webhooks import WebhookId, app, execute, order
from runtime.settings import Settings
from schemas.topics import WEBHOOK
from schemas.webhook import Delivery, DeliveryResult
from webhooks import reading
from webhooks.policy import ATTEMPTS_BY_HAND

__all__ = ("app",)  # with the commands of this file

MOST_ROWS: Final = 10_000
LOOK_EVERY_S: Final = 0.3

MessageIds = Annotated[
    list[str], typer.Argument(metavar="MESSAGE…", help="Message ids: see `webhooks deliveries`.")
]


@app.command()
def deliveries(
    webhook_id: WebhookId,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only what was not delivered.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Most rows to show.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """The newest attempts and what became of them, the newest last. The log has 30 days."""
    checked_id("ID", webhook_id)
    found = reading.deliveries(connected(redis=False), webhook_id, limit, failed=failed)
    if output is Output.JSON:
        print_json(found)
        return
    rows = (
        (
            moment(d.at_ms),
            d.message_id,
            f"{d.type} {d.aggregate_id} v{d.version}",
            f"{d.attempt}{' by hand' if d.by_hand else ''}",
            d.result,
            d.error or d.status,
            f"{d.latency_ms:,} ms",
        )
        for d in found
    )
    columns = ("at (UTC)", "message", "event", "attempt", "result", "answer", "took")
    answers().show(table(f"Deliveries to {webhook_id}", columns, rows))


@app.command()
def redeliver(
    webhook_id: WebhookId, messages: MessageIds, output: OutputOption = Output.TABLE
) -> None:
    """Deliver events once more, now and out of order; to a webhook that is paused, too."""
    checked_id("ID", webhook_id)
    settings = connected(redis=False)
    found = reading.find_events(settings, webhook_id, set(messages))
    missing = [message for message in messages if message not in found]
    if missing:
        raise Refused(
            f"the log of {webhook_id} has no {', '.join(missing)}",
            "`orderflow webhooks deliveries` lists what it has; it keeps 30 days.",
            Exit.NO,
        )
    for message in messages:
        place = found[message]
        at = {"aggregate": place.aggregate, "partition": place.partition, "offset": place.offset}
        order("RequestRedelivery", webhook_id, output, {"message_id": message, **at})


@app.command()
def skip(
    webhook_id: WebhookId,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="Message id of the event.")],
    *,
    reason: Annotated[str, typer.Option(help="Why, in words for people.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Pass an event that the receiver will never take; what waits behind it goes on."""
    order("SkipWebhookEvent", webhook_id, output, {"message_id": message, "reason": reason})


@app.command("test")
def try_out(
    webhook_id: WebhookId,
    *,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_SECONDS, help="Seconds to wait.")
    ] = 60.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Deliver a message that says nothing, and say whether it arrived."""
    checked_id("ID", webhook_id)
    settings = connected(redis=False)
    outcome = execute(settings, "TestWebhook", webhook_id, {})
    if not outcome.accepted:
        show_outcome(outcome, output)
        raise quit_with(Exit.NO)
    line = _wait_for_test(settings, webhook_id, outcome.version, timeout)
    if output is Output.JSON:
        print_json(line)
    else:
        said = line.error or f"HTTP {line.status}"
        text = f"{line.result}: {said}, {line.latency_ms:,} ms"
        answers().say(text)
    if line.result is not DeliveryResult.DELIVERED:
        raise quit_with(Exit.NO)


def _wait_for_test(settings: Settings, webhook_id: str, version: int, timeout: float) -> Delivery:
    """Return the last line of the log about a test, by the version that it led to. Raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        line = reading.newest_of(settings, webhook_id, WEBHOOK, version)
        if line is not None and _is_last(line):
            return line
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError(
        f"nothing was delivered to {webhook_id} within {timeout:g} s: see that "
        "`orderflow webhooks deliver` is running"
    )


def _is_last(line: Delivery) -> bool:
    return line.result is not DeliveryResult.FAILED or line.attempt >= ATTEMPTS_BY_HAND
