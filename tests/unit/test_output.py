"""What is stored is shown as it is and can be copied: nothing of it is markup, an emoji name or a command to
the terminal.
"""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow.cli.output import (
    Printer,
    Styled,
    console,
    json_text,
    moment,
    money,
    number,
    sums,
    table,
)
from runtime.printable import is_visible, printable
from schemas.currencies import MINOR_DIGITS

ROOT = Path(__file__).parents[2]

HOSTILE = (
    "urn:id:42",
    ":smile:",
    "job[/batch]",
    "[red]",
    "[bold]x[/bold]",
    "\\[red]",
    "a" * 128,
    "1,999 0x1f 127.0.0.1 /etc/passwd 'quoted' https://example.com True None",
)

INVISIBLE = (
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b2J",
    "\u202ecba",
    "\u200b",
    "\u2066",
    "\ufeff",
    "\u2028",
    "\r\n",
    "\x00",
    "\x7f",
    "\u3164",
    "\U000e0041",
    "\udc80",
)

anything = st.text(
    st.one_of(st.characters(), st.sampled_from("".join(INVISIBLE) + "[]:/\\ \n\t")), max_size=60
)


def shown(*, width: int | None = 10_000, terminal: bool = False, **what: Any) -> str:
    """What a printer writes for ``line=`` or ``cells=``."""
    file = io.StringIO()
    colours = "truecolor" if terminal else None
    printer = Printer(
        console(file=file, width=width, force_terminal=terminal, color_system=colours)
    )
    if "line" in what:
        printer.say(*what["line"])
    else:
        printer.show(table("T", [str(n) for n, _ in enumerate(what["cells"])], [what["cells"]]))
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_text_can_be_copied_as_it_is(text: str) -> None:
    assert text in shown(line=[text])
    assert text in shown(line=["id ", Styled(text, "red")])
    assert text in shown(cells=[text])
    assert text in shown(line=[text], terminal=True, width=200)


@pytest.mark.parametrize("text", INVISIBLE)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str) -> None:
    for said in (shown(line=[text]), shown(cells=[text]), shown(line=[Styled(text, "red")])):
        assert all(is_visible(char) or char == "\n" for char in said)
        assert "\\" in said


@given(anything)
def test_every_visible_character_stays_and_no_other_does(text: str) -> None:
    safe = printable(text)
    assert all(map(is_visible, safe))
    kept = [char for char in text if is_visible(char)]
    rest = iter(safe)
    assert all(char in rest for char in kept)  # in their order
    assert printable(safe) == safe
    if len(kept) == len(text):
        assert safe == text


@given(anything)
def test_a_line_is_one_line_and_a_cell_is_shown_whole(text: str) -> None:
    assert shown(line=[text]) == printable(text) + "\n"
    folded = "".join(part.strip("│┃ ") for part in shown(cells=[text]).splitlines()[4:-1])
    assert folded.replace(" ", "") == printable(text).replace(" ", "").strip("│┃")


def test_an_id_is_never_cut_and_in_a_file_never_folded() -> None:
    longest = "i" * 127 + "d"
    cells = [longest, longest, "b" * 40, "c" * 40]
    assert shown(cells=cells).count(longest) == 2
    on_a_terminal = shown(cells=cells, terminal=True, width=80)
    assert "…" not in on_a_terminal
    assert on_a_terminal.count("i") == 2 * 127


texts = anything.map(lambda text: text.encode("utf-8", "ignore").decode())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\x9bé☃\u202e"), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
@given(document=json_values)
def test_json_is_the_same_on_every_stream(encoding: str, document: Any) -> None:
    text = json_text(document, encoding)
    assert json.loads(text.encode(encoding)) == document
    assert all(is_visible(char) or char == "\n" for char in text)


def test_json_may_be_as_deep_as_what_can_be_decoded() -> None:
    document: Any = 1
    for _ in range(980):
        document = [document]
    depth, found = 0, json_text(document, "utf-8")
    for char in found:
        depth += char == "["
    assert depth == 980


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1_999, "JPY", "1,999 JPY"),
        (1_999, "GBP", "19.99 GBP"),
        (1_999, "KWD", "1.999 KWD"),
        (5, "BHD", "0.005 BHD"),
        (-5, "TND", "-0.005 TND"),
        (1_999, "CLF", "0.1999 CLF"),
        (-1_234_567, "USD", "-12,345.67 USD"),
        (-7, "KRW", "-7 KRW"),
        (0, "GBP", "0.00 GBP"),
        (1_999, "XYZ", "1,999 minor units of XYZ"),
        (1_999, "XAU", "1,999 minor units of XAU"),
        (10**40, "GBP", "over 10^30.00 GBP"),
    ],
)
def test_an_amount_has_the_decimals_of_its_currency(minor: int, currency: str, text: str) -> None:
    assert money(minor, currency) == text


def test_sums_name_each_currency() -> None:
    assert sums({"JPY": 1_999, "GBP": 1}) == "1,999 JPY, 0.01 GBP"
    assert sums({}) == "-"


def test_currencies_are_codes() -> None:
    assert len(MINOR_DIGITS) == 168
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in MINOR_DIGITS)


@given(st.integers() | st.sampled_from([2**63, -(2**63), 253_402_300_799_999, 253_402_300_800_000]))
def test_every_number_is_a_moment_or_says_what_it_is(epoch_ms: int) -> None:
    assert moment(epoch_ms)


def test_moments() -> None:
    assert moment(1_767_268_800_000) == "2026-01-01 12:00:00"
    assert moment(253_402_300_800_000) == "253,402,300,800,000 ms"  # the year 10000
    assert number(10**5_000)


PRINTERS = {"output.py", "streams.py", "progress.py"}


@pytest.mark.parametrize(
    "file", sorted((ROOT / "orderflow/cli").glob("*.py")), ids=lambda f: f.name
)
def test_nothing_prints_past_the_one_place(file: Path) -> None:
    """`rich` would read markup, and `print` or a stream would let escape sequences through."""
    if file.name in PRINTERS:
        return
    found = [name for node in ast.walk(ast.parse(file.read_text())) for name in _prints(node)]
    assert found == []


def _prints(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [one.name for one in names if one.name.split(".")[0] == "rich"]
        case ast.ImportFrom(module=str(module)):
            return [module] if module.split(".")[0] == "rich" else []
        case ast.Name(id="print"):
            return ["print"]
        case ast.Attribute(value=ast.Name(id="typer"), attr="echo" | "secho" as attr):
            return [attr]
        case ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr" | "stdin" as attr):
            return [attr]
        case ast.Attribute(attr="console"):
            return [] if _asks_only_for_a_terminal(node) else ["console"]
        case _:
            return []


def _asks_only_for_a_terminal(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "errors"


def test_a_print_past_it_would_be_found() -> None:
    code = "import rich.table\nfrom rich.text import Text\nprint(x)\ntyper.echo(x)\nsys.stdout.write(x)\n"
    found = [name for node in ast.walk(ast.parse(code)) for name in _prints(node)]
    assert sorted(found) == ["echo", "print", "rich.table", "rich.text", "stdout"]


def test_the_product_prints_nowhere_else() -> None:
    """Below the command line nothing prints: it answers, or it logs."""
    found = []
    for folder in (
        "runtime",
        "eventstore",
        "processors",
        "readmodels",
        "payments",
        "webhooks",
        "sync",
    ):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                found += [f"{file}: {name}" for name in _prints(node) if name in {"print", "rich"}]
    assert found == []
