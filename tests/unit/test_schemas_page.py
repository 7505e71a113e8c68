"""docs/SCHEMAS.md, step by step in a copy of the sources: its changes apply, and its commands say so."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import commands, matches

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/SCHEMAS.md"
NOT_COPIED = (".git", ".orderflow", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Language and text of what is to be done, in its order."""
    yield from re.findall(r"^```(diff|console)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(folder: Path, *command: str, given: str | None = None) -> tuple[int, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},
        input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_message_changes_step_by_step_as_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "orderflow"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    done = 0
    for language, text in blocks(PAGE.read_text("utf-8")):
        if language == "diff":
            code, said = run(folder, "git", "apply", "--recount", "-", given=text)
            assert code == 0, f"{text}\n{said}"
            continue
        for command, shown in commands(f"```console\n{text}```\n"):
            _, said = run(folder, "bash", "-c", command)
            assert matches(shown, said.splitlines()), f"{command}\nshown: {shown}\nprinted: {said}"
            done += 1
    assert done == 6
