"""Guard standard input, output and error, whatever they are: closed, full, not UTF-8.

`main` runs every command under `guarded`. Invariant: a failure of standard output leaves a command as
``OutputLost`` and as nothing else, so that no other file's failure is taken for it.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

REPLACED: Final = "backslashreplace"
"""Error handler for what a stream cannot encode: it stays readable, and nothing is lost."""


class OutputLost(Exception):
    """Standard output cannot be written. ``closed``: its reader went away, as `head` does."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output: {cause.strerror or cause}")
        self.closed = cause.errno == errno.EPIPE


class InputUnreadable(Exception):
    """Standard input cannot be read."""


class GuardedStream:
    """A text stream that encodes every character and reports a failed write. All else is the stream's own."""

    def __init__(self, stream: TextIO, *, needed: bool) -> None:
        self._stream = stream
        self._needed = needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what the encoding has, and escapes for the rest. Raises OutputLost."""
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, REPLACED).decode(encoding))
        except OSError as error:
            self._report(error)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each of the lines. Raises OutputLost."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand everything to the system. Raises OutputLost."""
        try:
            self._stream.flush()
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if self._needed:
            raise OutputLost(error) from None
        silence(self._stream)  # nothing is left that could be told of a broken standard error


@contextmanager
def guarded() -> Iterator[None]:
    """Guard both output streams inside the block and flush them at its end. Raises OutputLost."""
    before = sys.stdout, sys.stderr
    out, err = sys.stdout or _closed(os.O_RDONLY), sys.stderr or _closed(os.O_WRONLY)
    sys.stdout = cast("TextIO", GuardedStream(out, needed=True))
    sys.stderr = cast("TextIO", GuardedStream(err, needed=False))
    try:
        yield
        sys.stdout.flush()
    except OutputLost:
        silence(out)
        raise
    finally:
        sys.stdout, sys.stderr = before


def silence(stream: TextIO) -> None:
    """Send what is still buffered nowhere, or the interpreter complains of it at its end."""
    try:
        number = stream.fileno()
    except io.UnsupportedOperation:
        return  # a stream in memory, which has no buffer to be flushed
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def read_input() -> bytes:
    """Return all of standard input. Raises InputUnreadable."""
    if sys.stdin is None:
        raise InputUnreadable("standard input is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InputUnreadable(f"standard input: {error.strerror}") from None


def _closed(mode: int) -> TextIO:
    """Return a stream in place of one that was closed before the process began.

    It takes the lowest free file descriptor, so that no connection gets that of a standard stream. Opened for
    reading, each write to it fails.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(os.open(os.devnull, mode), "w")), encoding="utf-8"
    )
