"""How a Redis keeps what it is given: eviction, memory, persistence; of a cluster, of each master.

From INFO alone, which managed services answer, too; they refuse CONFIG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtime.redis.line import Line

SAFE_POLICY: Final = "noeviction"

EVICTION_REMEDY: Final = (
    "`redis-cli CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf; of a managed Redis set"
    " the parameter maxmemory-policy."
)

_STATUSES: Final = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
_REWRITING: Final = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
_FIRST_SECTION: Final = "# Server"


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """One server. ``limit``: maxmemory in bytes, 0 for none. ``policy`` is empty where it says nothing."""

    policy: str
    used: int
    limit: int
    append_only: bool
    writes_fail: bool
    rewriting: bool = False

    @property
    def evicts(self) -> bool:
        """True if it throws keys away when memory is short.

        Those with a time to live count, too: among them are the versions of what was deleted, and without
        one an old record brings a deleted row back.
        """
        return self.policy not in ("", SAFE_POLICY)


def redis_health(line: Line) -> tuple[RedisHealth, ...]:
    """Ask every server. Raises RedisError, OSError."""
    (said,) = line.run([("INFO",)])
    return tuple(_health(fields) for fields in _servers(str(said)))


def _servers(text: str) -> list[dict[str, str]]:
    """The fields of each server's answer: all servers of a cluster answer in one text."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        if line == _FIRST_SECTION:
            found.append({})
        elif ":" in line and found:
            name, _, value = line.partition(":")
            found[-1][name] = value
    return found


def _health(said: dict[str, str]) -> RedisHealth:
    failed = {said.get(name, "ok") for name in _STATUSES}
    return RedisHealth(
        policy=said.get("maxmemory_policy", ""),
        used=int(said.get("used_memory", "0")),
        limit=int(said.get("maxmemory", "0")),
        append_only=said.get("aof_enabled") == "1",
        writes_fail=failed != {"ok"},
        rewriting="1" in (said.get(name) for name in _REWRITING),
    )
