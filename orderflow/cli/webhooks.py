"""`orderflow webhooks`: who is told of which events, what became of it, and what an operator can do.

What an operator orders is a command, with an outcome and an event. A secret is shown once, by the command
that makes it.
"""

import base64
import secrets
import uuid
from typing import Annotated, Any, Final

import typer

from orderflow.cli.arguments import checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, answers, moment, print_json, reveal, table
from orderflow.cli.send import show_outcome
from orderflow.roles import stop_with_parent
from runtime.client import CommandClient, OutgoingCommand
from runtime.settings import Settings
from schemas.records import Outcome, encode
from schemas.topics import WEBHOOK
from schemas.webhook import EVENT_TYPES, WebhookStatus
from webhooks import reading
from webhooks.registry import Webhook

SECRET_BYTES: Final = 32

app = typer.Typer(help="Tell others of events over HTTP.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="Id of the webhook.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="Type, e.g. order.OrderShipped or order.*; may be repeated."),
]
Description = Annotated[str | None, typer.Option(help="What it is for, in words for people.")]


@app.command()
def create(
    webhook_id: WebhookId,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted to.")],
    *,
    events: Events = None,
    description: Description = None,
    secret: Annotated[
        str | None, typer.Option(help="Signs; whsec_ and base64. Made by chance if left out.")
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="All that ever happened, and what is to come.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Subscribe to events from now on. Shows the secret, this once."""
    if not events:
        shown = ", ".join(name for name in EVENT_TYPES if name.endswith("*"))
        raise Refused("no --event is given", f"Name at least one: {shown}, or single types.")
    made = secret or new_secret()
    optional = {"description": description} if description else {}
    data = {"url": url, "event_types": events, "secret": made, "from_beginning": from_beginning}
    order("CreateWebhook", webhook_id, output, data | optional, shown_once=made)


@app.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """Webhooks as they stand, those that are paused first; without those that are deleted."""
    found = [
        webhook
        for webhook in reading.webhooks(connected(redis=False)).values()
        if webhook.state.status is not WebhookStatus.DELETED
    ]
    found.sort(key=lambda webhook: webhook.state.status is WebhookStatus.ACTIVE)
    if output is Output.JSON:
        print_json([_shown(webhook) for webhook in found])
        return
    rows = (
        (w.id, w.state.status, w.state.url, ", ".join(w.state.event_types), w.state.pause_reason)
        for w in found
    )
    answers().show(
        table("Webhooks", ("webhook", "status", "url", "events", "paused because"), rows)
    )


@app.command()
def show(webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """One webhook, and how far it is behind."""
    checked_id("ID", webhook_id)
    settings = connected(redis=False)
    webhook = _find(settings, webhook_id)
    shown = _shown(webhook) | {"waiting": reading.waiting(settings, webhook)}
    if output is Output.JSON:
        print_json(shown)
        return
    times = ("created_at_ms", "updated_at_ms")
    rows = (
        (name.removesuffix("_at_ms"), f"{moment(value)} UTC" if name in times else _text(value))
        for name, value in shown.items()
    )
    answers().show(table(f"Webhook {webhook_id}", ("what", "value"), rows))


@app.command()
def update(
    webhook_id: WebhookId,
    *,
    url: Annotated[str | None, typer.Option(help="Where events are posted to from now on.")] = None,
    events: Events = None,
    description: Description = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what is given; what is left out stays."""
    given = {"url": url, "event_types": events or None, "description": description}
    data = {name: value for name, value in given.items() if value is not None}
    order("UpdateWebhook", webhook_id, output, data)


@app.command()
def rotate(
    webhook_id: WebhookId,
    *,
    secret: Annotated[str | None, typer.Option(help="The new one; made if left out.")] = None,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=168, help="How long the former one signs, too.")
    ] = 24.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sign with a new secret, for a while with the former one, too. Shows the new one, this once."""
    made = secret or new_secret()
    data = {"secret": made, "overlap_ms": round(overlap_hours * 3_600_000)}
    order("RotateWebhookSecret", webhook_id, output, data, shown_once=made)


@app.command()
def pause(
    webhook_id: WebhookId,
    *,
    reason: Annotated[str, typer.Option(help="Why, in words for people.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Deliver nothing until it is resumed; nothing is lost."""
    order("PauseWebhook", webhook_id, output, {"reason": reason})


@app.command()
def resume(webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """Go on where it stood."""
    order("ResumeWebhook", webhook_id, output, {})


@app.command()
def delete(webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """Deliver nothing any more, for good."""
    order("DeleteWebhook", webhook_id, output, {})


@app.command()
def deliver() -> None:
    """The role: deliver to all webhooks. Run as many as you like; they share the partitions."""
    from webhooks.role import run_webhooks

    stop_with_parent()
    raise typer.Exit(run_webhooks(connected(redis=False)))


def new_secret() -> str:
    """A signing secret as Standard Webhooks has it, by chance."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def order(
    kind: str,
    webhook_id: str,
    output: Output,
    data: dict[str, Any],
    *,
    shown_once: str | None = None,
) -> None:
    """A command and its outcome, shown. ``shown_once``: a secret, which is shown when it was accepted.

    Raises typer.Exit when it was not.
    """
    checked_id("ID", webhook_id)
    outcome = execute(connected(redis=False), kind, webhook_id, data)
    if shown_once is None or not outcome.accepted:
        show_outcome(outcome, output)
    elif output is Output.JSON:
        print_json({"outcome": outcome, "secret": shown_once}, reveal=True)
    else:
        show_outcome(outcome, output)
        reveal("secret", shown_once)
    if not outcome.accepted:
        raise quit_with(Exit.NO)


def execute(settings: Settings, kind: str, webhook_id: str, data: dict[str, Any]) -> Outcome:
    """Sends a command and waits. Raises Refused for what is no id, and what ``CommandClient`` raises."""
    checked = checked_id("ID", webhook_id)
    command = OutgoingCommand(WEBHOOK, checked, kind, encode(data), f"cli-{uuid.uuid4().hex}")
    with CommandClient(settings) as client:
        return client.execute(command)


def _find(settings: Settings, webhook_id: str) -> Webhook:
    found = reading.webhooks(settings).get(webhook_id)
    if found is None:
        raise Refused(
            f"there is no webhook {webhook_id}", "`orderflow webhooks list` has them.", Exit.NO
        )
    return found


def _shown(webhook: Webhook) -> dict[str, Any]:
    """Everything but the secrets; of those only until when former ones sign."""
    state = webhook.state
    return {
        "webhook": webhook.id,
        "version": webhook.version,
        "status": state.status,
        "url": state.url,
        "event_types": state.event_types,
        "description": state.description,
        "pause_reason": state.pause_reason,
        "former_secrets_until_ms": [each.until_ms for each in state.secrets if each.until_ms],
        "skipped": state.skipped,
        "created_at_ms": state.created_at_ms,
        "updated_at_ms": state.updated_at_ms,
    }


def _text(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    return None if value is None else str(value)
