"""The buggy processor, which suspends itself (SIGSTOP) before it commits a batch made only of what is due,
if the file that $SUSPEND names is there. Run as ``python -m tests.support.suspended_processor``; not part of
the product.

$SUSPEND_AT says where: ``before`` it reads its membership of the group, or ``after``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

from processors import role
from processors.loop import Batch, Processor
from processors.transaction import TransactionalWriter
from runtime.records import OutgoingRecord
from runtime.settings import Settings
from tests.support.buggy_processor import WITH_BUG

SUSPEND = Path(os.environ["SUSPEND"])
BEFORE = os.environ["SUSPEND_AT"] == "before"

NOTICED_WITHIN_S = 2.0
"""After the suspension the client library learns that its session has ended, and forgets its member id."""

_begin, _take_due, _write = Processor._begin, Processor._take_due, TransactionalWriter.begin
_only_due: list[bool] = [False]


def suspend() -> None:
    SUSPEND.unlink()
    os.kill(os.getpid(), signal.SIGSTOP)


def begin(self: Processor, batch: Batch) -> None:
    """As the shipped one, but for the suspension."""
    _only_due[0] = bool(batch.records) and not batch.commands and SUSPEND.exists()
    if _only_due[0] and BEFORE:
        suspend()
        time.sleep(NOTICED_WITHIN_S)
    _begin(self, batch)


def take_due(self: Processor) -> None:
    """As the shipped one, but what is due always comes too late for a batch of commands."""
    if self._batch is None:
        _take_due(self)


def write(self: TransactionalWriter, records: Collection[OutgoingRecord]) -> None:
    """As the shipped one, but for the suspension."""
    if _only_due[0] and not BEFORE:
        _only_due[0] = False
        suspend()
    _write(self, records)


if __name__ == "__main__":
    Processor._begin = begin  # type: ignore[method-assign]
    Processor._take_due = take_due  # type: ignore[method-assign]
    TransactionalWriter.begin = write  # type: ignore[method-assign]
    sys.exit(role.run_processor(Settings(), WITH_BUG))
