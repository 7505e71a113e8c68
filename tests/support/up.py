"""`orderflow up` as a process of a test: started until it has said where everything is, stopped at
the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

READY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 60.0


class Up:
    """``python -m orderflow up -o json`` under an environment. ``said`` is the JSON that it
    printed."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: str) -> None:
        self._log = log.open("ab")
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orderflow", "up", "-o", "json", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.said = self._read_document()

    def _read_document(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        alarm = threading.Timer(READY_WITHIN_S, self.process.kill)
        alarm.start()
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        alarm.cancel()
        assert lines, self.log.read_text()
        document: dict[str, Any] = json.loads("".join(lines))
        return document

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ends it with a signal; returns the exit code."""
        self.process.send_signal(signum)
        try:
            return self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
