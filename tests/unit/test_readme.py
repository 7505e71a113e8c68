"""What the documentation says is so: tables, command lines, links, names of files, and the examples."""

import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands.aggregate import Aggregate, Loaded
from orderflow.reference import marked_tables, settings_table
from runtime.settings import Settings
from schemas.payment import PaymentState, PaymentStatus
from schemas.rejections import Rejection
from tests.support.command_lines import parse

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text("utf-8")

COMMAND = re.compile(r"^orderflow ((?:'[^']*'|[^'\n#])+)", re.MULTILINE)
"""A command line in a block of shell; a JSON argument may go over several lines."""

IN_A_CONTAINER = re.compile(
    r"^docker compose .*\brun .*? (?:projector|processor) (.*)$", re.MULTILINE
)

of_every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[tuple[list[str], bool]]:
    """Words after `orderflow`, and whether they are a whole command line (in a block of shell)."""
    found: list[tuple[str, bool]] = []
    for block in blocks(text, "sh"):
        found += [
            (line, True) for pattern in (COMMAND, IN_A_CONTAINER) for line in pattern.findall(block)
        ]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found += [(line, False) for line in re.findall(r"`orderflow( [^`]*)`", prose)]
    return [(shlex.split(line), complete) for line, complete in found]


@of_every_document
def test_every_command_line_exists(document: Path) -> None:
    for words, complete in command_lines(document.read_text("utf-8")):
        if "--help" not in words:
            assert parse(words, complete=complete)


def test_the_readme_names_command_lines() -> None:
    shown = command_lines(README)
    assert (["topics", "diff"], True) in shown
    assert any(words[:2] == ["send", "CreateOrder"] for words, _ in shown)
    assert (["query", "low-stock"], True) in shown


def test_the_settings_table_has_every_variable_with_default_and_description() -> None:
    assert f"<!-- table: settings -->\n{settings_table()}<!-- end of table -->" in README
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", settings_table(), re.MULTILINE)
    assert rows == [
        (
            field.alias,
            "none" if field.default is None else f"`{field.default}`",
            field.description,
        )
        for field in Settings.model_fields.values()
    ]


def test_every_generated_table_stands_in_a_document() -> None:
    text = "".join(document.read_text("utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"<!-- table: ([a-z-]+) -->", text)) == set(marked_tables())


@of_every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), f"{target} does not exist"


@of_every_document
def test_every_file_that_is_named_exists(document: Path) -> None:
    packages = "schemas|commands|runtime|processors|readmodels|sync|orderflow|tests|examples|docs"
    named = re.findall(rf"`((?:{packages})/[\w./-]+\.\w+)`", document.read_text("utf-8"))
    invented = {"readmodels/payments.py"}  # the example of a view
    missing = [path for path in named if not (ROOT / path).exists() and path not in invented]
    assert not missing


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """The README's files as modules, in the order in which they stand there."""
    made = {}
    for block in blocks(README, "python"):
        first = re.match(r"# (\w+)/(\w+)\.py\n", block)
        if first is None:
            continue
        name = f"{first[1]}.{first[2]}"
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(block, name, "exec"), module.__dict__)
        made[name] = module
    return made


def test_the_example_of_a_view_projects_a_payment(examples: dict[str, types.ModuleType]) -> None:
    payment = PaymentState(PaymentStatus.REQUESTED, "o-1", "GBP", 500, 0, 0, 1, 1)
    document = examples["readmodels.payments"].project("p-1", 3, msgspec.json.encode(payment))
    assert document.score == 500
    assert dict(zip(document.fields[::2], document.fields[1::2], strict=True))["version"] == "3"


def test_the_example_of_an_aggregate_decides(examples: dict[str, types.ModuleType]) -> None:
    module: Any = examples["commands.coupon"]
    coupon: Aggregate = module.COUPON
    issued = coupon.decide(Loaded(), module.IssueCoupon(uses=1))
    assert not isinstance(issued, Rejection)
    state = coupon.evolve(Loaded(), issued[0], 1)
    assert coupon.decide(state, module.IssueCoupon(uses=7)) == ()
    redeemed = coupon.decide(state, module.RedeemCoupon())
    assert not isinstance(redeemed, Rejection)
    empty = coupon.evolve(state, redeemed[0], 2)
    assert empty.root.uses_left == 0
    assert isinstance(coupon.decide(empty, module.RedeemCoupon()), Rejection)


def test_every_python_block_compiles() -> None:
    for document in DOCUMENTS:
        for block in blocks(document.read_text("utf-8"), "python"):
            compile(block, document.name, "exec")
