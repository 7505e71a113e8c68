"""Keep what lies in ORDERFLOW_HOME to its owner: names, addresses, keys and secrets are among it.

The folder itself lets nobody else in; files in it are made for their owner alone all the same, for the day
on which somebody copies them.
"""

import os
import stat
from pathlib import Path
from typing import Final

OWNER_ONLY: Final = 0o077
"""The umask of every process that writes below the home."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def others_can_read(path: Path) -> bool:
    """True if the permissions of a file or folder let in anybody but its owner."""
    return bool(path.stat().st_mode & _OTHERS)


def secure_home(home: Path) -> None:
    """Make the home, or take from others what an older release has left open to them.

    A home that belongs to another user stays as it is: `orderflow doctor` says so. Raises OSError.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not others_can_read(home) or home.stat().st_uid != os.geteuid():
        return
    for folder, folders, files in os.walk(home):
        for name in (*folders, *files):
            _close_to_others(Path(folder, name))
    _close_to_others(home)  # at last: what was interrupted is done again by the next process


def open_private(path: Path) -> int:
    """Open a file for appending, made for its owner alone; returns the descriptor. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def keep_small(path: Path, limit: int) -> None:
    """Move the content of a longer log to ``NAME.1``, while others go on appending to it.

    They hold it open, so it cannot be renamed: it is copied, then emptied. Only what is written in the moment
    between the last read and that can be lost. Raises OSError.
    """
    if not path.exists() or path.stat().st_size <= limit:
        return
    old = path.with_name(f"{path.name}.1")
    old.unlink(missing_ok=True)
    copy = open_private(old)
    try:
        with path.open("r+b") as log:
            while chunk := log.read(1 << 20):
                os.write(copy, chunk)
            log.truncate(0)
    finally:
        os.close(copy)


def _close_to_others(path: Path) -> None:
    """A server may have deleted it meanwhile, and a link points to what is not ours."""
    if path.is_symlink() or not path.exists():
        return
    try:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return
