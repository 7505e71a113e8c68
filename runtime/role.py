"""What every role of a deployment leaves behind: exit codes, files of its own, lines on standard error."""

import logging
import os
from typing import Any, Final

from runtime.condition import Repetitions
from runtime.printable import printable
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


def log_to_stderr(settings: Settings) -> None:
    """Log at the level of the settings, without secrets and without endless repetitions.

    Does nothing in a process that logs already.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Repetitions())
    logging.basicConfig(level=settings.log_level, handlers=[handler])


class SafeFormatter(logging.Formatter):
    """Write each record in one line and its traceback indented, without secrets, and with escapes for what
    steers a terminal.

    Records quote what others sent: a line break in it must not look like the next record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its traceback, which another formatter may have kept as it came."""
        record.exc_text = None
        text = super().format(record)
        record.exc_text = None
        return masked(text)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # name of the library
        """Return the line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return a stack."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"  {printable(line)}" for line in text.split("\n"))
