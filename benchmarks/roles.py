"""A role, or any other program, as a process of a benchmark, stopped in the end."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

STOP_WITHIN_S = 30.0

Process = subprocess.Popen[bytes]


@contextmanager
def running(module: str, environment: Mapping[str, str], *arguments: str) -> Iterator[Process]:
    """``python -m MODULE`` under an environment, until the end of the block."""
    with program([sys.executable, "-m", module, *arguments], environment) as process:
        yield process


@contextmanager
def program(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """A command line under an environment, until the end of the block; killed if it does not stop."""
    # What it says goes to standard error: standard output is for the figures.
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=sys.stderr)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
