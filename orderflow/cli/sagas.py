"""`orderflow sagas`: how sagas stand, and what an operator can do about them.

What an operator orders is a command, with an outcome and an event that names who ordered it.
"""

import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from orderflow.cli.arguments import checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, Table, answers, moment, print_json, table
from orderflow.cli.send import show_outcome
from readmodels import Queries, SagaAnswer, SagaStepAnswer
from runtime.client import CommandClient, OutgoingCommand
from schemas.records import encode
from schemas.saga import SagaStatus, StepStatus
from schemas.topics import SAGA

MOST_ROWS: Final = 1_000

app = typer.Typer(help="See and mend sagas.", no_args_is_help=True)

SagaId = Annotated[str, typer.Argument(metavar="ID", help="Id of the saga, e.g. the order's.")]
By = Annotated[str, typer.Option(help="Who orders it; stands in the history.")]


@app.command("list")
def list_(
    status: Annotated[
        SagaStatus | None, typer.Option(help="Left out: all that have not ended.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Most rows to show.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sagas that need somebody first, then those in which nothing has moved for longest."""
    with Queries(connected(kafka=False)) as queries:
        found = queries.sagas(status.value if status else None, limit)
    if output is Output.JSON:
        print_json(found)
        return
    rows = (
        (s.saga_id, s.saga, s.status, _standing(s), moment(s.updated_at_ms), s.code) for s in found
    )
    columns = ("saga", "name", "status", "step", "last change (UTC)", "reason")
    answers().show(table("Sagas", columns, rows))


@app.command()
def show(saga_id: SagaId, output: OutputOption = Output.TABLE) -> None:
    """One saga as a timeline: steps, times, attempts, and why."""
    checked_id("ID", saga_id)
    with Queries(connected(kafka=False)) as queries:
        found = queries.saga(saga_id)
    if found is None:
        raise Refused(
            f"the views know no saga {saga_id}",
            "If it is new, a projector may be behind: `orderflow doctor` says how far.",
            Exit.NO,
        )
    if output is Output.JSON:
        print_json(found)
    else:
        show_timeline(found)


@app.command()
def retry(
    saga_id: SagaId,
    *,
    by: By,
    note: Annotated[str | None, typer.Option(help="Why, in words for people.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask again what is not answered, and undo again what could not be undone."""
    _order("RetrySaga", saga_id, output, by=by, **({"note": note} if note else {}))


@app.command()
def compensate(
    saga_id: SagaId,
    *,
    by: By,
    reason: Annotated[str, typer.Option(help="Why, in words for people.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Undo a saga that runs, or one that is completed."""
    _order("CompensateSaga", saga_id, output, by=by, reason=reason)


@app.command()
def resolve(
    saga_id: SagaId,
    *,
    by: By,
    note: Annotated[str, typer.Option(help="What was done, in words for people.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Say that what could not be undone was put right by hand."""
    _order("ResolveSaga", saga_id, output, by=by, note=note)


def _order(kind: str, saga_id: str, output: Output, **data: Any) -> None:
    checked_id("ID", saga_id)
    command = OutgoingCommand(SAGA, saga_id, kind, encode(data), f"cli-{uuid.uuid4().hex}")
    with CommandClient(connected(redis=False)) as client:
        outcome = client.execute(command)
    show_outcome(outcome, output)
    if not outcome.accepted:
        raise quit_with(Exit.NO)


_AT_WORK: Final = frozenset(
    {StepStatus.RUNNING, StepStatus.COMPENSATING, StepStatus.NOT_COMPENSATED}
)


def _standing(saga: SagaAnswer) -> str | None:
    """The steps that wait for answers or for a person; where there are none, the last one."""
    at_work = [step.name for step in saga.steps if step.status in _AT_WORK]
    return ", ".join(at_work or [step.name for step in saga.steps[-1:]]) or None


def show_timeline(saga: SagaAnswer) -> None:
    """A saga for people: how it stands, why, and what happened when."""
    out = answers()
    for line in _headlines(saga):
        out.say(line)
    out.show(_timeline(saga))


def _headlines(saga: SagaAnswer) -> Iterator[str]:
    reason = f", {saga.code}: {saga.message}" if saga.code else ""
    yield f"saga {saga.saga_id} ({saga.saga}): {saga.status}{reason}"
    if saga.correlation_id != saga.saga_id:
        yield f"correlation id {saga.correlation_id}"
    if saga.wakes_at_ms is not None:
        yield f"goes on by itself at {moment(saga.wakes_at_ms)} UTC, unless an answer comes before"
    if saga.resolved_by is not None:
        yield f"put right by hand, says {saga.resolved_by}"


def _timeline(saga: SagaAnswer) -> Table:
    forward = [line for step in saga.steps for line in _forward(step)]
    back = [line for step in reversed(saga.steps) for line in _back(step)]
    # In the order in which things follow from each other, also where they have the same time.
    happened = sorted([*forward, *back], key=lambda line: line[0])
    rows = (
        (f"+{_seconds(saga.started_at_ms, at_ms)}", step, what, took, detail)
        for at_ms, step, what, took, detail in happened
    )
    columns = ("time", "step", "what", "took", "how")
    return table(f"since {moment(saga.started_at_ms)} UTC", columns, rows)


_Line = tuple[int, str, str, str, str]


def _forward(step: SagaStepAnswer) -> Iterator[_Line]:
    accepted = f"{step.accepted} of {step.commands} accepted{_asked(step.attempt)}"
    if step.ended_at_ms is None:
        yield step.started_at_ms, step.name, "started", "", accepted + _reason(step)
        return
    commands = f"{step.commands} command{'s' if step.commands > 1 else ''}"
    yield step.started_at_ms, step.name, "started", "", commands
    took = _seconds(step.started_at_ms, step.ended_at_ms)
    if step.accepted == step.commands:
        yield step.ended_at_ms, step.name, "completed", took, accepted
    else:
        # The newest refusal of what could not be undone is that of its undoing.
        why = "" if _given_up(step) else _reason(step)
        yield step.ended_at_ms, step.name, "failed", took, accepted + why


def _back(step: SagaStepAnswer) -> Iterator[_Line]:
    if step.undo_started_at_ms is None:
        return
    undone = f"{step.undone} of {step.undo_commands} undone{_asked(step.undo_attempt)}"
    if step.undo_ended_at_ms is None:
        yield step.undo_started_at_ms, step.name, "undoing", "", undone
        return
    yield step.undo_started_at_ms, step.name, "undoing", "", f"{step.undo_commands} to undo"
    took = _seconds(step.undo_started_at_ms, step.undo_ended_at_ms)
    if _given_up(step):
        yield step.undo_ended_at_ms, step.name, "not undone", took, undone + _reason(step)
    else:
        yield step.undo_ended_at_ms, step.name, "undone", took, undone


def _given_up(step: SagaStepAnswer) -> bool:
    return step.undo_ended_at_ms is not None and step.undone < step.undo_commands


def _asked(attempt: int) -> str:
    return f", asked {attempt} times" if attempt > 1 else ""


def _reason(step: SagaStepAnswer) -> str:
    return f"; {step.code}: {step.message}" if step.code else ""


def _seconds(begin_ms: int, end_ms: int) -> str:
    return f"{(end_ms - begin_ms) / 1000:.3f} s"
