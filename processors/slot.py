"""A numbered place for each processor of one machine: it names the local state and the
transactional id.

The same number after a restart finds the same state again and fences whatever the process left
behind.
"""

import fcntl
import os
import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MAX_SLOTS: Final = 256


class NoFreeSlot(RuntimeError):
    """All places below ORDERFLOW_HOME are taken: give further processors another ORDERFLOW_HOME."""


class Slot:
    """The first place that no living process holds. The lock dies with the process, however it ends."""

    def __init__(self, home: Path, role: str) -> None:
        """Takes a place below ``home/role``. Raises NoFreeSlot."""
        base = home / role
        base.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            lock = (base / f"{number}.lock").open("a+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            self._lock = lock
            self.directory = base / str(number)
            self.directory.mkdir(exist_ok=True)
            host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
            # The home is part of the name: two homes on one host are two places.
            home_id = f"{base.stat().st_ino:x}"
            self.name = f"{role}.{host}.{home_id}.{number}"
            return
        raise NoFreeSlot(NoFreeSlot.__doc__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()
