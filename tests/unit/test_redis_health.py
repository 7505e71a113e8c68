"""What INFO says of eviction, memory and persistence, of one server and of many."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from runtime.redis import Command, Line, RedisHealth, Reply, redis_health

POLICIES = (
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
)

healths = st.builds(
    RedisHealth,
    st.sampled_from(POLICIES),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.booleans(),
    st.booleans(),
)


def said(of: RedisHealth) -> str:
    lines = (
        "# Server",
        "redis_version:7.0.15",
        "# Memory",
        f"used_memory:{of.used}",
        f"maxmemory:{of.limit}",
        f"maxmemory_policy:{of.policy}",
        "# Persistence",
        f"aof_enabled:{int(of.append_only)}",
        f"aof_last_write_status:{'err' if of.writes_fail else 'ok'}",
        "rdb_last_bgsave_status:ok",
    )
    return "".join(f"{line}\r\n" for line in lines)


class Answering(Line):
    """A line whose servers answer INFO as they are told."""

    def __init__(self, text: str) -> None:
        self._text = text

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        assert commands == [("INFO",)]
        return [self._text]


@given(st.lists(healths, min_size=1, max_size=5))
def test_every_server_of_a_cluster_is_looked_at(servers: list[RedisHealth]) -> None:
    assert list(redis_health(Answering("".join(map(said, servers))))) == servers


@given(healths)
def test_only_noeviction_keeps_everything(server: RedisHealth) -> None:
    assert server.evicts == (server.policy != "noeviction")


def test_a_server_that_does_not_say_its_policy_is_not_refused() -> None:
    (server,) = redis_health(Answering("# Server\r\nredis_version:2.8\r\n"))
    assert not server.evicts
