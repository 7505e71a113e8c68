"""What every role of a deployment leaves behind: exit codes, and lines on standard error."""

import logging
from typing import Final

from runtime.settings import Settings

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
"""Something a person has to look at; what, stands on standard error."""


def log_to_stderr(settings: Settings) -> None:
    """At the level of the settings; does nothing in a process that logs already."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
