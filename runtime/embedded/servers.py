"""Kafka and Redis together, owned by one process; others on the machine find them by the home.

`<home>/servers.json` says where they are while the owner lives. `<home>/servers.lock` is held by
the owner, so there is at most one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.jars import OnProgress
from runtime.embedded.kafka import EmbeddedKafka
from runtime.embedded.locks import FileLock
from runtime.embedded.redis import EmbeddedRedis
from runtime.private_files import secure_home
from schemas.decoding import DecodeError, decode_object

MAX_PID = 2**31
START_TIME_TOLERANCE_S = 1.0  # start times are given in clock ticks and may be rounded


@dataclass(frozen=True, slots=True)
class ServersAddress:
    """Where the servers are, as clients want it."""

    bootstrap_servers: str
    redis_url: str


class EmbeddedServers:
    """Both servers, from `start` to `stop`, or as a context manager.

    Not reusable by two owners: `start` raises EmbeddedServerError while another object, here or in
    another process, has servers on the same home.
    """

    def __init__(self, home: Path, *, on_progress: OnProgress | None = None) -> None:
        self.home = home.absolute()
        self._report: OnProgress = on_progress or (lambda _message, _fraction: None)
        self.kafka = EmbeddedKafka(self.home, on_progress=self._report)
        self.redis = EmbeddedRedis(self.home)
        self._lock = FileLock(self.home / "servers.lock")

    @property
    def address(self) -> ServersAddress:
        """Raises EmbeddedServerError before the first start."""
        return ServersAddress(self.kafka.bootstrap_servers, self.redis.url)

    def start(self) -> None:
        """Start both at the same time; returns when both answer.

        Raises EmbeddedServerError; then nothing is left running.
        """
        secure_home(self.home)
        if not self._lock.acquire(blocking=False):
            raise EmbeddedServerError(
                f"The servers of {self.home} are already running{_owner_note(self.home)}. Use "
                "them, stop that process, or choose another folder (ORDERFLOW_HOME)."
            )
        try:
            self._report("starting Kafka and Redis", None)
            _in_parallel(self.kafka.start, self.redis.start)
            self._announce()
        except BaseException:
            self.stop()
            raise
        self._report("Kafka and Redis are up", 1.0)

    def stop(self) -> None:
        """Stop both, in an orderly way; nothing happens if they are not running."""
        if not self._lock.held:
            return
        _file(self.home).unlink(missing_ok=True)
        try:
            _in_parallel(self.kafka.stop, self.redis.stop)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _announce(self) -> None:
        owner = psutil.Process()
        content = {
            "bootstrap_servers": self.kafka.bootstrap_servers,
            "redis_url": self.redis.url,
            "owner_pid": owner.pid,
            "owner_started": owner.create_time(),
        }
        draft = _file(self.home).with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draft.replace(_file(self.home))

    @staticmethod
    def discover(home: Path) -> ServersAddress | None:
        """Where the servers of this home are; None if there are none or their owner is dead."""
        content = _read(home)
        if content is None or not _is_alive(content):
            return None
        try:
            return ServersAddress(str(content["bootstrap_servers"]), str(content["redis_url"]))
        except KeyError:
            return None


def _in_parallel(*actions: Callable[[], None]) -> None:
    """Run all to their end, then raise the first error, if any."""
    with ThreadPoolExecutor(len(actions)) as threads:
        futures = [threads.submit(action) for action in actions]
    for future in futures:
        future.result()


def _file(home: Path) -> Path:
    return home / "servers.json"


def _read(home: Path) -> dict[str, object] | None:
    """What the owner announced; None if there is nothing readable, as after a crash of the disk."""
    try:
        return decode_object(_file(home).read_bytes())
    except (FileNotFoundError, DecodeError):
        return None


def _is_alive(content: dict[str, object]) -> bool:
    """True if the owner still runs; a later process with the same pid started at another time."""
    pid, started = content.get("owner_pid"), content.get("owner_started")
    if not (isinstance(pid, int) and 0 < pid < MAX_PID and isinstance(started, float)):
        return False
    try:
        owner = psutil.Process(pid)
        same = abs(owner.create_time() - started) < START_TIME_TOLERANCE_S
        return same and owner.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _owner_note(home: Path) -> str:
    content = _read(home)
    return f", owned by process {content.get('owner_pid')}" if content else ""
