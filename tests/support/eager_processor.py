"""A command processor that erases within seconds what it otherwise erases within a day, with the bug of
`buggy_processor`. Run as ``python -m tests.support.eager_processor``; not part of the product.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from processors import erasure
from processors.command_processor import WORK
from processors.role import run_processor
from runtime.settings import Settings
from tests.support.buggy_processor import USER, decide

EAGER: dict[str, Any] = {
    "ERASED_WITHIN_MS": 3_000,
    "FIRST_LOOK_S": 1.0,
    "LOOK_EVERY_S": 1.0,
    "ROLL_EVERY_MS": 1_000,
}

if __name__ == "__main__":
    for name, value in EAGER.items():
        assert hasattr(erasure, name)
        setattr(erasure, name, value)
    aggregates = tuple(
        replace(one, decide=decide) if one is USER else one for one in WORK.aggregates
    )
    sys.exit(run_processor(Settings(), replace(WORK, aggregates=aggregates)))
