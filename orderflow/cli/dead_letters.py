"""`orderflow dead-letters`: records that could not be handled, and what an operator can do about them.

A command that could not be judged holds its aggregate: what follows for it waits. Retried, edited or
discarded it leaves its place, and the others go on in their order. Each action stands in the audit.
"""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from orderflow.cli.arguments import checked_letter
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import (
    Output,
    OutputOption,
    Styled,
    Table,
    answers,
    moment,
    plain,
    print_json,
    table,
)
from orderflow.cli.streams import read_input
from orderflow.dead_letters import Desk, Letter, Order, Settlement
from orderflow.dead_letters.letters import text_of
from runtime.records import IncomingRecord
from schemas.masking import masked_bytes

app = typer.Typer(help="See and settle records that could not be handled.", no_args_is_help=True)

SHOWN_BYTES: Final = 4_096

LetterId = Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, e.g. 0-17.")]
By = Annotated[str, typer.Option(help="Who orders it; stands in the audit.")]
Note = Annotated[str | None, typer.Option(help="Why, in words for people.")]


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that are settled, too.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Letters that are open, the oldest first, and how many records wait behind each."""
    letters = [one for one in _desk().letters() if everything or one.open]
    if output is Output.JSON:
        print_json(letters)
        return
    now_ms = time.time_ns() // 1_000_000
    rows = (
        (
            one.id,
            one.stage,
            one.code,
            f"{one.topic}-{one.partition}@{one.offset}",
            one.key,
            one.waiting,
            one.attempts,
            _age(now_ms - one.first_at_ms),
            "open" if one.open else one.actions[-1].action,
        )
        for one in letters
    )
    columns = ("id", "stage", "code", "record", "key", "wait", "tried", "age", "status")
    answers().show(table("Dead letters", columns, rows))


@app.command()
def show(letter_id: LetterId, output: OutputOption = Output.TABLE) -> None:
    """One letter: its bytes, its headers, the traceback, and what was done about it."""
    checked_letter(letter_id)
    desk = _desk()
    letter = desk.letter(letter_id)
    record = desk.record(letter)
    if output is Output.JSON:
        marks = {name: text_of(v) for name, v in record.headers if isinstance(v, bytes)}
        value = masked_bytes(record.value or b"")
        bytes_ = {"value": _text(value), "hex": None if _text(value) is not None else value.hex()}
        print_json({**plain(letter), **bytes_, "headers": marks})
        return
    out = answers()
    for line in _lines(letter, record):
        out.block(line)
    if letter.actions:
        out.show(_audit(letter))


@app.command()
def retry(
    letter_id: LetterId, *, by: By, note: Note = None, output: OutputOption = Output.TABLE
) -> None:
    """Handle it again, as it came and in its old place; then what waits behind it."""
    _settle(letter_id, Order(action="retry", by=by, note=note), output)


@app.command()
def discard(
    letter_id: LetterId, *, by: By, note: Note = None, output: OutputOption = Output.TABLE
) -> None:
    """Give it up: its sender gets the rejection `discarded`; then what waits behind it."""
    _settle(letter_id, Order(action="discard", by=by, note=note), output)


@app.command()
def edit(
    letter_id: LetterId,
    *,
    record: Annotated[
        str, typer.Option(help="The whole record, as JSON; @FILE reads a file, @- standard input.")
    ],
    by: By,
    note: Note = None,
    key: Annotated[
        str | None, typer.Option(help="Key for a record that came without a usable one.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Handle other bytes in its place, under the same command id; then what waits behind it."""
    order = Order(action="edit", by=by, note=note, record=_given(record), key=key)
    _settle(letter_id, order, output)


def _desk() -> Desk:
    return Desk(connected(redis=False))


def _settle(letter_id: str, order: Order, output: Output) -> None:
    if not order.by.strip():
        raise Refused("--by must not be empty", "Name who orders it, e.g. --by ann.")
    checked_letter(letter_id)
    settlement = _desk().settle(letter_id, order)
    if output is Output.JSON:
        print_json(settlement)
    else:
        _print(settlement)
    if not settlement.settled:
        raise quit_with(Exit.NO)


def _print(settlement: Settlement) -> None:
    out, did = answers(), f"{settlement.letter} {settlement.action}"
    if settlement.settled:
        out.say(Styled("settled", "green"), f" {did}: {settlement.result}")
        return
    out.say(Styled("not settled", "red"), f" {did}: {settlement.code}")
    out.say(settlement.result)


def _given(record: str) -> bytes:
    if record == "@-":
        return read_input()
    if record.startswith("@"):
        return Path(record[1:]).read_bytes()
    return record.encode()


def _lines(letter: Letter, record: IncomingRecord) -> list[str]:
    held = f"holds {letter.aggregate} {letter.key}, {letter.waiting} wait behind it"
    marks = {name: text_of(v) or "" for name, v in record.headers if isinstance(v, bytes)}
    trace = marks.pop("orderflow.errors.stacktrace", "")
    value = record.value or b""
    text = _text(masked_bytes(value[:SHOWN_BYTES]))
    cut = f"… cut here, of {len(value):,} bytes" if len(value) > SHOWN_BYTES else ""
    return [
        f"dead letter {letter.id}: {'open' if letter.open else 'settled'}",
        f"{letter.code} in {letter.stage}: {letter.message}",
        f"record {letter.topic}-{letter.partition} at {letter.offset}, key {letter.key}",
        f"attempts: {letter.attempts}, the first at {moment(letter.first_at_ms)} UTC",
        *([held] if letter.open and letter.holds_key else []),
        "",
        f"{len(value):,} bytes" + ("" if text is not None else ", as hex") + ":",
        masked_bytes(value[:SHOWN_BYTES]).hex(" ") if text is None else text,
        *([cut] if cut else []),
        "",
        *(f"{name}: {value}" for name, value in marks.items()),
        *(["", trace.rstrip()] if trace else []),
    ]


def _audit(letter: Letter) -> Table:
    rows = (
        (moment(a.at_ms), a.action, a.by, a.result, a.note, a.before[:12], a.after[:12])
        for a in letter.actions
    )
    columns = ("at (UTC)", "action", "by", "result", "note", "bytes before", "after")
    return table("What was done", columns, rows)


def _text(value: bytes) -> str | None:
    """The bytes as text; None where they are none."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or "\n" in text else None


def _age(ms: int) -> str:
    seconds = max(0, ms) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
