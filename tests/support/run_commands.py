"""Many command lines at once, each in a process of its own: standard input has them as JSON, standard output
gets how each ended.

A process that has imported everything forks one for each, so that hundreds of command lines cost seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AT_ONCE = 12
WITHIN_S = 150.0
KILLED = -9


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended; ``code`` -9: it was killed, because it did not end."""

    words: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def run_commands(lines: Sequence[Sequence[str]], env: dict[str, str]) -> list[Ended]:
    """Run the command lines under an environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.run_commands"],
        input=json.dumps(lines),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=1_200,
    )
    return [Ended(tuple(words), *rest) for words, *rest in json.loads(done.stdout)]


def main() -> None:
    lines: list[list[str]] = json.load(sys.stdin)
    from orderflow.cli.app import COMMANDS, app

    for entry in COMMANDS.values():
        importlib.import_module(f"orderflow.cli.{entry.module}")
    importlib.import_module("orderflow.cli.failures")
    waiting, running, ended = (
        list(enumerate(lines)),
        dict[int, tuple[int, float]](),
        dict[int, int](),
    )
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                number, words = waiting.pop(0)
                pid = os.fork()
                if not pid:
                    _be(app, words, Path(folder, f"{number}"))
                running[pid] = number, time.monotonic()
            _reap(running, ended)
            time.sleep(0.02)
        found = [
            (words, ended[number], *_said(Path(folder, f"{number}")))
            for number, words in enumerate(lines)
        ]
    json.dump(found, sys.stdout)


def _be(app: object, words: list[str], file: Path) -> None:
    """Become the command; does not return."""
    for number, end in ((1, ".out"), (2, ".err")):
        target = os.open(file.with_suffix(end), os.O_WRONLY | os.O_CREAT)
        os.dup2(target, number)
    code = 99
    try:
        sys.argv = ["orderflow", *words]
        app()  # type: ignore[operator]
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(running: dict[int, tuple[int, float]], ended: dict[int, int]) -> None:
    for pid, (number, began) in list(running.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[number] = os.waitstatus_to_exitcode(status)
            del running[pid]
        elif time.monotonic() - began > WITHIN_S:
            os.kill(pid, -KILLED)


def _said(file: Path) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        file.with_suffix(end).read_bytes().decode("utf-8", "surrogateescape")
        for end in (".out", ".err")
    )


if __name__ == "__main__":
    main()
