"""One server as a child of this process: start it, know when it is ready, stop it, kill it.

What differs between servers (command line, readiness) is in the subclasses in `kafka` and `redis`.
Not thread-safe: one thread starts and stops one server; different servers are independent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from runtime.embedded.errors import EmbeddedServerError, PortTakenError
from runtime.embedded.guardian import Spec
from runtime.embedded.ports import free_port
from runtime.private_files import OWNER_ONLY

GUARDIAN = Path(__file__).with_name("guardian.py")

PORT_ATTEMPTS = 6  # each a new random port, or the same fixed one after PORT_RETRY_S
PORT_RETRY_S = 0.5  # a server just killed may hold its port for a moment
READY_CHECK_S = (
    0.05  # how often to ask a starting server; bounds what is added to its own start time
)
LOCK_WAIT_S = 15.0  # a predecessor whose owner was killed needs up to its grace period to be gone
STOP_MARGIN_S = 5.0  # beyond the grace period, for the guardian to see the end and to end itself
LOG_TAIL_BYTES = 3_000  # of the server's log in an error message: about a screen
LOG_LIMIT_BYTES = 10_000_000  # a longer log is moved to NAME.log.1 at the next start
BIND_FAILURES = ("Address already in use", "BindException")  # in the log: somebody took the port


class ServerProcess(ABC):
    """A server on the loopback address, stopped with this process however this process ends.

    `start` may be called again after `stop` or `kill`, and takes the same port again: clients that
    are still running find the server where it was. A second server on the same data folder, of
    this process or of another, is refused.
    """

    name: ClassVar[str]  # names the data folder and the log
    start_deadline_s: ClassVar[float]
    stop_grace_s: ClassVar[float]

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        self.home = home.absolute()
        self.data = self.home / self.name
        self.log = self.home / "logs" / f"{self.name}.log"
        self._port = port
        self._pid: int | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> None:
        """Whatever has to be there before the first launch. Raises EmbeddedServerError."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """The command line that serves on this port and stays in the foreground."""

    @abstractmethod
    def _is_ready(self, port: int, within_s: float) -> bool:
        """True if this very server, not just any on the port, answers a client's request."""

    @property
    def port(self) -> int:
        """The port in use, or the one that will be used again. Raises EmbeddedServerError."""
        if self._port is None:
            raise EmbeddedServerError(f"{self.name} has no port yet: call start() first.")
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id, not the guardian's. Raises EmbeddedServerError."""
        if self._pid is None:
            raise EmbeddedServerError(f"{self.name} is not running: call start() first.")
        return self._pid

    @property
    def running(self) -> bool:
        """True from `start` until the server ends, by whomever."""
        return self._guardian is not None and self._guardian.poll() is None

    def start(self) -> None:
        """Start the server and wait until a client's request is answered.

        Raises EmbeddedServerError if it is running already, cannot be started or does not answer
        in time; then nothing is left running.
        """
        if self.running:
            raise EmbeddedServerError(f"{self.name} is already running with pid {self._pid}.")
        self.stop()
        for folder in (self.data, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self._port or free_port()
            try:
                self._start_on(port)
            except PortTakenError:
                if attempt == PORT_ATTEMPTS:
                    raise
                if self._port is not None:
                    time.sleep(PORT_RETRY_S)
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Stop the server, in the end by force. Nothing happens if it is not running."""
        guardian, self._guardian, self._pid = self._guardian, None, None
        if guardian is None:
            return
        assert guardian.stdin is not None
        assert guardian.stdout is not None
        guardian.stdin.close()
        try:
            guardian.wait(self.stop_grace_s + STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            guardian.kill()  # and with it, on Linux, the server
            guardian.wait()
        guardian.stdout.close()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would; returns when it is gone.

        Raises EmbeddedServerError if it was not started.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_on(self, port: int) -> None:
        """Raises PortTakenError if the port cannot be bound, EmbeddedServerError for the rest."""
        log_start = self._rotate_log()
        try:
            self._launch(self._command(port))
            self._wait_until_ready(port, log_start)
        except BaseException:
            self.stop()
            raise

    def _launch(self, command: list[str]) -> None:
        spec: Spec = {
            "argv": command,
            "cwd": str(self.data),
            "log": str(self.log),
            "lock": str(self.home / f"{self.name}.lock"),
            "lock_wait_s": LOCK_WAIT_S,
            "grace_s": self.stop_grace_s,
            "owner": os.getpid(),
        }
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARDIAN), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            umask=OWNER_ONLY,
        )
        assert self._guardian.stdout is not None
        word, _, rest = self._guardian.stdout.readline().decode().strip().partition(" ")
        if word != "pid":
            raise EmbeddedServerError(
                f"{self.name} could not be started in {self.home}: {rest or 'the guardian died'}. "
                "Stop the process that uses this folder, or choose another one (ORDERFLOW_HOME)."
            )
        self._pid = int(rest)

    def _wait_until_ready(self, port: int, log_start: int) -> None:
        deadline = time.monotonic() + self.start_deadline_s
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(READY_CHECK_S)
            if not self.running:
                raise self._ended(port, log_start)
            if self._is_ready(port, within_s=left):
                return
        raise EmbeddedServerError(
            f"{self.name} did not answer on port {port} within {self.start_deadline_s:.0f} s. "
            f"Is the machine very busy, or its disk full? {self._log_tail(log_start)}"
        )

    def _ended(self, port: int, log_start: int) -> EmbeddedServerError:
        tail = self._log_tail(log_start)
        if any(failure in tail for failure in BIND_FAILURES):
            return PortTakenError(
                f"{self.name} could not take port {port}: another process has it. "
                f"Choose another port or none. {tail}"
            )
        return EmbeddedServerError(
            f"{self.name} ended while starting. If its data in {self.data} is damaged or from "
            f"another version, move that folder away. {tail}"
        )

    def _rotate_log(self) -> int:
        """Keep the log bounded; return where the coming launch begins in it."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size <= LOG_LIMIT_BYTES:
            return size
        self.log.replace(self.log.with_suffix(".log.1"))
        return 0

    def _log_tail(self, log_start: int) -> str:
        if not self.log.exists():
            return f"There is no log at {self.log}."
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(log_start, end - LOG_TAIL_BYTES))
            tail = log.read().decode(errors="replace").strip()
        return f"The end of {self.log}:\n{tail}"
