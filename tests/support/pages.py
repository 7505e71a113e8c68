"""Carries out a page of the documentation: its ```console blocks, line by line, in one folder.

A line that begins with `$ ` is given to bash; what follows is its standard output. A line `…` stands
for any lines. Blocks of another language are not carried out.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

WITHIN_S = 120
ANYTHING = "…"


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a page, and the lines that it shows."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        command, shown = "", list[str]()
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, shown
                command, shown = line.removeprefix("$ "), []
            else:
                shown.append(line)
        if command:
            yield command, shown


def carry_out(
    page: Path,
    env: Mapping[str, str],
    folder: Path,
    before: Callable[[str], None] = lambda _: None,
) -> int:
    """Runs a page; returns how many commands it had. ``before``: what has to happen before a command."""
    count = 0
    for command, shown in commands(page.read_text("utf-8")):
        before(command)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        told = f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, told
        assert matches(shown, done.stdout.splitlines()), f"shown: {shown}\n{told}"
        count += 1
    return count


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether the output is as shown, but for blanks at the ends of lines."""
    parts = [
        r"(?:.*\n)*?" if line == ANYTHING else re.escape(line.rstrip()) + "\n" for line in shown
    ]
    text = "".join(f"{line.rstrip()}\n" for line in printed)
    return re.fullmatch("".join(parts), text) is not None
