"""Roles as real processes, to be stopped, killed and suspended as an operator or a fate would."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from runtime.embedded import ServersAddress


def environment(servers: ServersAddress, prefix: str, home: Path, **more: str) -> dict[str, str]:
    """Environment of a test's roles: shared servers, topics of its own, local state of its own."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "REDIS_URL": servers.redis_url,
        "ORDERFLOW_TOPIC_PREFIX": prefix,
        "ORDERFLOW_HOME": str(home),
        "ORDERFLOW_PARTITIONS": "2",
        **more,
    }


class RoleProcess:
    """``python -m MODULE`` under an environment; its log goes to a file that a failing test can show."""

    def __init__(self, module: str, env: dict[str, str], log: Path, *arguments: str) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **env},
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()
        self._file.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM; returns the exit code."""
        self._process.terminate()
        return self._process.wait(timeout)

    def wait(self, timeout: float = 30.0) -> int:
        """Waits until it ends by itself; returns the exit code."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """SIGSTOP: the process lives and does nothing, as one that swaps or is paused."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text()
