"""`orderflow history`: what happened to one aggregate, or in one conversation over all of them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import typer

from eventstore import Entry, EntryKind, EventStore, StateAt, StreamId
from orderflow.cli.arguments import MAX_COUNT, epoch_ms
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused
from orderflow.cli.output import (
    Output,
    OutputOption,
    Styled,
    Table,
    answers,
    moment,
    print_json,
    table,
)
from orderflow.cli.progress import progress_bars, progress_reporter
from readmodels import Queries
from readmodels.views import VIEWS
from schemas.records import encode

DETAIL_WIDTH: Final = 100


class HistoryAnswer(msgspec.Struct, frozen=True):
    """One aggregate as of a version. ``state`` and ``parts`` as JSON has them."""

    stream: str
    version: int
    occurred_at_ms: int
    state: Any
    parts: Any
    entries: tuple[Entry, ...]


class ViewAt(msgspec.Struct, frozen=True):
    """How far a view is with an aggregate: ``shown`` is its version, ``version`` the conversation's."""

    view: str
    stream: str
    version: int
    shown: int


class ConversationAnswer(msgspec.Struct, frozen=True):
    """A conversation, and whether the views show what came of it."""

    correlation_id: str
    entries: tuple[Entry, ...]
    views: tuple[ViewAt, ...]


def history(
    aggregate: Annotated[
        str | None, typer.Argument(help="order, user, inventory, payment, saga or stream.")
    ] = None,
    aggregate_id: Annotated[str | None, typer.Argument(metavar="ID", help="Its id.")] = None,
    *,
    correlation: Annotated[
        str | None, typer.Option(help="Instead: a whole conversation, by its correlation id.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="As of this time, ISO 8601; UTC where it says nothing else.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, max=MAX_COUNT, help="As of this version.")
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="What each event changed.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """What happened: `orderflow history order o-1`, or `orderflow history --correlation o-1`.

    Of an aggregate: its events, the commands it refused in the last 10 days, and its state then. Of a
    conversation: who asked what, what came of it, why something was refused, and what the views show.
    """
    if (correlation is None) == (aggregate is None or aggregate_id is None):
        raise Refused(
            "either an aggregate and its id, or --correlation",
            "For example `orderflow history order o-1`.",
        )
    if correlation == "":
        raise Refused(
            "--correlation must not be empty", "It is the id of the command that began it."
        )
    if at is not None and version is not None:
        raise Refused("--at and --version exclude each other", "Leave one of them out.")
    at_ms = None if at is None else epoch_ms("--at", at)
    stream = StreamId(aggregate or "", aggregate_id or "")
    if correlation is None:
        stream.checked()
    settings = connected()
    with (
        progress_bars() as bars,
        bars.step("Reading the history") as step,
        EventStore(settings, progress_reporter(step)) as store,
    ):
        if correlation is not None:
            talk = store.conversation(correlation)
        else:
            entries, state = store.history(stream, version=version, at_ms=at_ms)
    if correlation is None:
        _show_aggregate(stream, state, entries, output, diff=diff)
        return
    if not talk:
        raise Refused(
            f"no conversation {correlation} is known",
            "It is the id of the command that began it, or what its sender called it.",
            Exit.NO,
        )
    with Queries(settings) as queries:
        answer = ConversationAnswer(correlation, talk, _views(queries, talk))
    _show_conversation(answer, output)


def _views(queries: Queries, entries: tuple[Entry, ...]) -> tuple[ViewAt, ...]:
    newest: dict[StreamId, int] = {}
    for entry in entries:
        if entry.kind is EntryKind.EVENT:
            newest[entry.stream] = max(newest.get(entry.stream, 0), entry.version or 0)
    return tuple(
        ViewAt(view.name, str(stream), version, queries.wait_for(view.name, stream.id, 0, 0))
        for stream, version in sorted(newest.items())
        for view in VIEWS
        if view.aggregate == stream.aggregate
    )


def _show_aggregate(
    stream: StreamId, state: StateAt, entries: tuple[Entry, ...], output: Output, *, diff: bool
) -> None:
    plain = state.plain()
    if output is Output.JSON:
        answer = HistoryAnswer(
            str(stream),
            state.version,
            state.occurred_at_ms,
            plain["state"],
            plain["parts"],
            entries,
        )
        print_json(answer)
        return
    out = answers()
    out.show(_timeline(f"History of {stream}", entries, diff=diff, one=True))
    shown = plain if plain["parts"] else plain["state"]
    out.say(f"{stream} at version {state.version}, {moment(state.occurred_at_ms)} UTC:")
    out.json(shown)


def _show_conversation(answer: ConversationAnswer, output: Output) -> None:
    if output is Output.JSON:
        print_json(answer)
        return
    out = answers()
    title = f"Conversation {answer.correlation_id}"
    out.show(_timeline(title, answer.entries, diff=False, one=False))
    rows = ((v.view, v.stream, v.version, v.shown, v.shown >= v.version) for v in answer.views)
    out.show(table("Views", ("view", "aggregate", "version", "view has", "there"), rows))


def _timeline(title: str, entries: tuple[Entry, ...], *, diff: bool, one: bool) -> Table:
    """``one``: all of one aggregate, which need not be named in each line."""
    columns = ("time (UTC)", "aggregate", "what", "version", "detail", "asked by")
    skip = 1 if one else None
    rows = (
        [cell for number, cell in enumerate(_row(entry, diff=diff)) if number != skip]
        for entry in entries
    )
    return table(title, [name for number, name in enumerate(columns) if number != skip], rows)


_MARKS: Final = {
    EntryKind.EVENT: "",
    EntryKind.COMMAND: "? ",
    EntryKind.DEAD_LETTER: "! ",
    EntryKind.ACTION: "* ",
}


def _row(entry: Entry, *, diff: bool) -> list[object]:
    mark = _MARKS[entry.kind]
    style = "bold red" if entry.status == "rejected" or entry.code else ""
    what = Styled(f"{mark}{entry.type}", style)
    version = entry.version if entry.kind is EntryKind.EVENT else None
    return [
        moment(entry.at_ms),
        str(entry.stream),
        what,
        version,
        _detail(entry, diff=diff),
        entry.cause,
    ]


def _detail(entry: Entry, *, diff: bool) -> Styled | tuple[str, ...] | str:
    if entry.code:
        return Styled(f"{entry.code}: {entry.message}", "red")
    if diff and entry.kind is EntryKind.EVENT:
        return tuple(
            f"{change.field}: {_short(change.before)} → {_short(change.after)}"
            for change in entry.changes
        )
    asked = "" if entry.status is None else f"{entry.status} "
    data = "" if not entry.data else _short(entry.data)
    return f"{asked}{data}".strip()


def _short(value: Any) -> str:
    text = encode(value).decode()
    return text if len(text) <= DETAIL_WIDTH else f"{text[: DETAIL_WIDTH - 1]}…"
