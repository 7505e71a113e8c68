"""Runs the roles as child processes: restarts what crashed, stops all in order, outlives nothing.

A child watches its standard input, a pipe whose other end only this process holds: when this
process is gone, even by SIGKILL, the pipe closes and the child stops by itself (see
`roles.stop_with_parent`). Children have sessions of their own, so Ctrl-C reaches only the parent,
which decides the order of the shutdown.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runtime.private_files import OWNER_ONLY, keep_small, open_private

BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds from one start of a child to the first, second … restart in a row; the last one from then on. The
time that the child ran counts, so that only one that ends at once waits.
"""

HEALTHY_AFTER_S: Final = 60.0
"""A child that ran this long begins at the first pause again."""

STOP_WITHIN_S: Final = 20.0
"""How long a child may take to finish its transaction or batch after SIGTERM, before SIGKILL."""

TAIL_BYTES: Final = 2_000

LOG_LIMIT_BYTES: Final = 10_000_000
"""A longer log is moved to ``NAME.log.1``: of each role there is at most twice as much."""

SUPERVISED: Final = "ORDERFLOW_SUPERVISED"


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child, as the live status shows it. ``last_exit`` is None until it ended once."""

    name: str
    pid: int | None
    restarts: int
    uptime_s: float
    last_exit: int | None
    log: Path

    @property
    def running(self) -> bool:
        """Whether it runs now; if not, it waits for its restart."""
        return self.pid is not None


class Child:
    """One role's process and its restarts. Not thread-safe."""

    def __init__(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._environment = {**os.environ, **environment, SUPERVISED: "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0
        self._restarts = 0
        self._in_a_row = 0
        self._last_exit: int | None = None

    def start(self) -> None:
        """Starts the process; its output is appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = open_private(self.log)
        try:
            self._process = subprocess.Popen(
                self._argv,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=OWNER_ONLY,
            )
        finally:
            os.close(log)
        self._started_at = time.monotonic()

    def look_after(self) -> None:
        """Notes that it ended; starts it again when its pause is over. Keeps its log small."""
        keep_small(self.log, LOG_LIMIT_BYTES)
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_again_at:
                self._restarts += 1
                self.start()
        elif (code := self._process.poll()) is not None:
            self._close_pipe()
            self._last_exit = code
            self._process = None
            if now - self._started_at > HEALTHY_AFTER_S:
                self._in_a_row = 0
            self._start_again_at = start_again_at(self._started_at, now, self._in_a_row)
            self._in_a_row += 1

    def ask_to_stop(self) -> None:
        """SIGTERM; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def wait_until_stopped(self, deadline: float) -> None:
        """Until it ended or the deadline passed; then SIGKILL."""
        if self._process is None:
            return
        try:
            self._last_exit = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._last_exit = self._process.wait()
        self._close_pipe()
        self._process = None

    def status(self) -> ChildStatus:
        """How it stands now."""
        running = self._process is not None
        return ChildStatus(
            self.name,
            self._process.pid if self._process else None,
            self._restarts,
            time.monotonic() - self._started_at if running else 0.0,
            self._last_exit,
            self.log,
        )

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def start_again_at(started_at: float, ended_at: float, in_a_row: int) -> float:
    """Return when a child is started again, after so many restarts in a row; times on one clock, seconds."""
    interval = BACKOFF_S[min(in_a_row, len(BACKOFF_S) - 1)]
    return max(ended_at + BACKOFF_S[0], started_at + interval)


class Supervisor:
    """Several children, from ``start`` to ``stop``, or as a context manager; call ``look_after`` often."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = tuple(children)

    def __enter__(self) -> Self:
        try:
            for child in self.children:
                child.start()
        except OSError:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def look_after(self) -> None:
        """Restarts what has ended, each after its pause."""
        for child in self.children:
            child.look_after()

    def statuses(self) -> list[ChildStatus]:
        """All children as they stand."""
        return [child.status() for child in self.children]

    def stop(self) -> None:
        """SIGTERM to all, then waits for each; returns when none is left."""
        for child in self.children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_WITHIN_S
        for child in self.children:
            child.wait_until_stopped(deadline)


def role(
    name: str,
    environment: Mapping[str, str],
    logs: Path,
    title: str | None = None,
    arguments: Sequence[str] = (),
) -> Child:
    """The child that runs one role with this interpreter: ``python -m orderflow processor``."""
    return Child(
        title or name,
        [sys.executable, "-m", "orderflow", name, *arguments],
        environment,
        logs / f"{title or name}.log",
    )
