"""docs/BUS.md does what it says: its blocks run, one after the other, on a bus in one process."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Final

import pytest

from orderflow.bus import BusCode, errors, in_process_bus, queries, standard
from orderflow.bus.errors import BusError

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "BUS.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def stories() -> dict[str, Any]:
    """Every function of the page by name, in order."""
    page = sys.modules["page"] = types.ModuleType("page")  # pydantic looks its models' module up
    names = page.__dict__
    for block in BLOCKS:
        exec(compile(block, "docs/BUS.md", "exec"), names)
    return {
        name: found
        for name, found in names.items()
        if inspect.isfunction(found)
        and found.__module__ == "page"
        and (name.startswith("test_") or "bus" in inspect.signature(found).parameters)
    }


@pytest.mark.parametrize("name", stories())
def test_every_block_of_the_page_runs(name: str) -> None:
    story = stories()[name]
    if not inspect.iscoroutinefunction(story):
        story()
        return

    async def on_a_bus() -> None:
        async with in_process_bus() as bus:
            await story(bus)

    asyncio.run(on_a_bus())


def test_the_page_has_stories() -> None:
    assert len(stories()) == len(BLOCKS)


def test_the_page_shows_what_the_example_prints() -> None:
    said = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "bus.py")],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"```text\n{said.stdout}```" in PAGE


def test_the_tables_of_the_page_are_complete() -> None:
    rows = [
        cells
        for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE)
        if (cells := row.split(" | "))
    ]
    first = [cells[0].strip("`") for cells in rows]
    assert {row.partition("(")[0] for row in first} >= {query.__name__ for query in queries.QUERIES}
    steps = [name for name in first if name in {type(step).__name__ for step in standard()}]
    assert steps == [type(step).__name__ for step in standard()]
    kinds = [k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, BusError)]
    wanted = {
        (k.__name__, k.code.value, "yes" if k.retriable else "no")
        for k in kinds
        if k is not BusError
    }
    told = {
        (cells[0].strip("`"), cells[1].strip("`"), cells[-1]) for cells in rows if len(cells) == 4
    }
    assert wanted <= told
    assert {code for _, code, _ in wanted} == set(BusCode)
