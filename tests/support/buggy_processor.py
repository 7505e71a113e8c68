"""A command processor whose handler of `DeactivateUser` has a bug for the reason "poison", as long as the
file that $BUG names is there. Run as ``python -m tests.support.buggy_processor``; not part of the product.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from commands import by_name
from commands.aggregate import Decision, Loaded
from commands.user import DeactivateUser
from processors.command_processor import WORK
from processors.role import run_processor
from runtime.settings import Settings

BUG = Path(os.environ["BUG"])
USER = by_name["user"]


def decide(loaded: Loaded, command: Any) -> Decision:
    """As the shipped one, but for the bug."""
    if isinstance(command, DeactivateUser) and command.reason == "poison" and BUG.exists():
        raise ZeroDivisionError("poison")
    return USER.decide(loaded, command)


WITH_BUG = replace(
    WORK,
    aggregates=tuple(replace(a, decide=decide) if a is USER else a for a in WORK.aggregates),
)

if __name__ == "__main__":
    sys.exit(run_processor(Settings(), WITH_BUG))
