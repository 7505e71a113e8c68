"""A role as a process of a benchmark, stopped in the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from orderflow.supervisor import Child

STOP_WITHIN_S = 30.0


@contextmanager
def running(child: Child) -> Iterator[None]:
    """Runs until the end of the block."""
    child.start()
    try:
        yield
    finally:
        child.ask_to_stop()
        child.wait_until_stopped(time.monotonic() + STOP_WITHIN_S)
