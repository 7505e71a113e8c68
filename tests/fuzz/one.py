"""Fuzz one target in this process: ``python -m tests.fuzz.one TARGET [libFuzzer options and folders]``.

The product is imported with instrumentation, so that the fuzzer sees which branches an input takes.
"""

import logging
import sys
from typing import Final

import atheris

PRODUCT: Final = [
    *("commands", "eventstore", "orderflow", "payments", "processors", "readmodels"),
    *("runtime", "sagas", "schemas", "webhooks"),
]

with atheris.instrument_imports(include=PRODUCT):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the options say stop; an exception of the target ends the process with its input saved."""
    name, *options = sys.argv[1:]
    logging.disable(logging.CRITICAL)  # a target's log lines would hide what the fuzzer reports
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
