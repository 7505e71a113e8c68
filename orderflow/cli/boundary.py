"""Turn whatever leaves a command into one sentence and an exit code of `exits`: the edge of the process.

An expected failure has its meaning in `failures`. Anything else is a bug: its traceback goes to a file, and
exit code 70 says that it happened, so that no bug is taken for an expected failure.
"""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import typer

from orderflow.cli.exits import Exit, Failure, Refused, show
from orderflow.cli.output import errors
from orderflow.cli.streams import OutputLost, guarded
from orderflow.supervisor import SUPERVISED
from runtime.printable import from_system, printable

DEBUG: Final = "DEBUG"


def run(command: Callable[[], object], words: Sequence[str]) -> int:
    """Run a command line and return its exit code; nothing but SystemExit leaves it."""
    try:
        with guarded():
            return _code(command, words)
    except OutputLost as lost:
        if lost.closed:
            return Exit.CLOSED
        with guarded():
            show(Failure(Exit.UNWRITTEN, str(lost), "What was asked for may have been done."))
        return Exit.UNWRITTEN


def _code(command: Callable[[], object], words: Sequence[str]) -> int:
    try:
        _check(words)
        code = command()
    except OutputLost:
        raise
    except typer.TyperException as error:
        _show_usage(error)
        return error.exit_code
    except typer.Abort:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last line of defence: a bug, and it is reported
        return _failed(error)
    return code if isinstance(code, int) else Exit.OK


def _failed(error: Exception) -> int:
    from orderflow.cli.failures import explain

    failure = explain(error)
    if failure is None:
        _report(error)
        return Exit.BUG
    show(failure)
    return failure.code


def _check(words: Sequence[str]) -> None:
    """Raise Refused for an argument that no command can take: bytes that are no UTF-8, or NUL."""
    for number, word in enumerate(map(from_system, words), start=1):
        if "\0" in word or any("\ud800" <= char <= "\udfff" for char in word):
            raise Refused(
                f"argument {number} is no UTF-8 text: {printable(word[:200])}",
                "Arguments are UTF-8, without NUL.",
            )


def _show_usage(error: typer.TyperException) -> None:
    message = error.format_message()
    if not message:
        return  # the help has been shown instead
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "orderflow"
    lines = (line.strip() for line in message.splitlines())
    show(Failure(Exit.USAGE, " ".join(lines), f"`{path} --help` shows what there is."))


def _report(error: Exception) -> None:
    """Say in one sentence that this is a bug, and where its traceback is."""
    trace = "".join(traceback.format_exception(error))
    kind = f"{type(error).__name__}: {error}"
    if os.environ.get("ORDERFLOW_LOG_LEVEL") == DEBUG or os.environ.get(SUPERVISED) == "1":
        errors.block(trace)  # of a supervised role, standard error is its log
    file = _written(trace, error)
    where = (
        f"Its traceback is in {file}" if file else "ORDERFLOW_LOG_LEVEL=DEBUG shows its traceback"
    )
    show(
        Failure(
            Exit.BUG,
            f"this is a bug in orderflow: {kind}",
            f"{where}; please report it, together with the command line.",
        )
    )


def _written(trace: str, error: Exception) -> Path | None:
    """Write the traceback where its owner alone can read it; None if there is no place for it.

    The same bug is written to the same file, however often a role is restarted.
    """
    frames = traceback.extract_tb(error.__traceback__)
    name = sha256("".join(f"{f.filename}:{f.lineno}" for f in frames).encode()).hexdigest()[:12]
    home = Path(os.environ.get("ORDERFLOW_HOME") or ".orderflow") / "logs"
    for folder in (home, Path(tempfile.gettempdir())):
        file = folder / f"bug-{type(error).__name__}-{name}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(
                file, "w", opener=_private, encoding="utf-8", errors="backslashreplace"
            ) as out:
                out.write(f"{sys.argv!r}\n{trace}")
        except OSError:
            continue
        return file
    return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
