"""What every role of a deployment leaves behind: exit codes, files of its own, lines on standard error."""

import logging
import os
from typing import Final

from runtime.condition import Repetitions
from runtime.private_files import OWNER_ONLY, secure_home
from runtime.settings import Settings
from schemas.masking import masked

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
"""Something a person has to look at; what, stands on standard error."""


def begin_role(settings: Settings) -> None:
    """Log to standard error, and leave only files that nobody else can read. Raises OSError."""
    log_to_stderr(settings)
    os.umask(OWNER_ONLY)
    secure_home(settings.home)


class MaskingFormatter(logging.Formatter):
    """Formats lines and tracebacks without the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as ``logging.Formatter`` does, secrets masked."""
        return masked(super().format(record))


def log_to_stderr(settings: Settings) -> None:
    """Log at the level of the settings, without secrets and without endless repetitions.

    Does nothing in a process that logs already.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Repetitions())
    logging.basicConfig(level=settings.log_level, handlers=[handler])
