"""The simulated gateway as a process: started, asked, killed, started anew on the same port and ledger."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from payments.ledger import Book
from payments.simulated_gateway import address_file
from runtime.settings import Settings
from tests.support.commanding import eventually
from tests.support.processes import RoleProcess


class GatewayProcess:
    """What `orderflow gateway` runs, with its ledger under ``home``."""

    def __init__(self, home: Path, log: Path) -> None:
        self._env = {"ORDERFLOW_HOME": str(home)}
        self._address = address_file(Settings.model_validate(self._env))
        self._log = log
        self.url = self._start(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.__exit__(kind, error, trace)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._process.stop()

    def start_anew(self) -> None:
        """The same port and ledger as before."""
        self._process.__exit__(None, None, None)
        assert self._start(int(self.url.rpartition(":")[2])) == self.url

    def book(self) -> Book:
        """Every movement of money."""
        return msgspec.json.decode(json.dumps(self.get("/ledger")), type=Book)

    def mend(self) -> None:
        """Everything works from now on."""
        self._open(urllib.request.Request(self.url + "/mend", data=b""))

    def get(self, path: str) -> Any:
        """The JSON of an answer; None where there is none."""
        return self._open(urllib.request.Request(self.url + path))

    def _open(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            return None

    def _start(self, port: int) -> str:
        self._address.unlink(missing_ok=True)
        self._process = RoleProcess("payments.simulated_gateway", self._env, self._log, str(port))
        eventually(lambda: self._address.exists() or not self._process.running)
        if not self._process.running:
            self._process.__exit__(None, None, None)
            raise AssertionError(self._log.read_text())
        return self._address.read_text()
