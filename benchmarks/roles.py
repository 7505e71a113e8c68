"""A role as a process of a benchmark, stopped in the end."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

STOP_WITHIN_S = 30.0


@contextmanager
def running(module: str, environment: Mapping[str, str], *arguments: str) -> Iterator[None]:
    """``python -m MODULE`` under an environment, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], env={**os.environ, **environment}
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(STOP_WITHIN_S)
