"""`orderflow import online-retail` with a small file, through real servers, to a reconciliation
without differences."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from orderflow.shop.retail_file import COLUMNS
from runtime.embedded import ServersAddress
from tests.support.processes import environment
from tests.support.up import Up

INVOICES = 120


@pytest.fixture(scope="module")
def env(
    servers: ServersAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Environment of a running pipeline."""
    folder = tmp_path_factory.mktemp("retail")
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", folder / "home")
    with Up(env, folder / "up.log"):
        yield env


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A shop of a winter, as odd as the real one: returns, write-offs, guests, fees, doubled
    lines."""
    random = Random(11)
    codes = [f"{20_000 + n}{random.choice(['', 'A', 'b'])}" for n in range(30)] + [
        "POST",
        "gift_0001_30",
    ]
    lines = [",".join(COLUMNS)]
    for number in range(INVOICES):
        kind = random.choices(["sale", "return", "write-off", "mixed"], [80, 10, 7, 3])[0]
        invoice = f"{'C' if kind == 'return' else ''}{536_365 + number}"
        customer = random.choice(["", "17850", "13047", "12583"])
        date = f"2010-12-{1 + number // 10:02d}T{8 + number % 10:02d}:26:00"
        for line in range(1 if kind == "write-off" else random.randint(1, 12)):
            pieces = random.randint(1, 40)
            if kind in ("return", "write-off") or (kind == "mixed" and line == 0):
                pieces = -pieces
            price = random.choice(["2.55", "0.0", "0.125", "16.95"])
            text = random.choice(["WHITE LANTERN", ""])
            row = (invoice, random.choice(codes), text, pieces, date, price, customer, "France")
            lines.append(",".join(map(str, row)))
    path = tmp_path / "retail.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def imported(env: dict[str, str], file: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ("import", "online-retail", str(file), "-o", "json"), env=env)
    assert result.exit_code == Exit.OK, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_a_file_is_imported_reconciled_and_importing_it_again_changes_nothing(
    env: dict[str, str], file: Path
) -> None:
    first = imported(env, file)
    assert first["differences"] == first["surprises"] == []
    assert first["invoices"] == INVOICES
    assert first["rejected"]["invalid_data"] > 0
    assert first["withheld"] > 0
    again = imported(env, file)
    assert again | {"seconds": 0} == first | {"seconds": 0}


def test_the_commands_topics_keep_what_they_kept_before(env: dict[str, str]) -> None:
    assert CliRunner().invoke(app, ("topics", "diff"), env=env).exit_code == Exit.OK


def test_a_difference_is_exit_code_1_and_named(env: dict[str, str], file: Path) -> None:
    imported(env, file)
    lost = ("send", "AdjustStock", "POST", "--json", '{"delta": 1, "reason": "found"}', "--wait")
    assert CliRunner().invoke(app, lost, env=env).exit_code == Exit.OK
    result = CliRunner().invoke(app, ("import", "online-retail", str(file)), env=env)
    assert result.exit_code == Exit.NO
    assert "POST" in result.stdout
