"""Fixtures of all tests: real servers, started once a run, and own ones for tests that break them.

`ORDERFLOW_TEST_SERVERS=docker` or `embedded` chooses; otherwise containers are used when a Docker
engine answers, and the embedded servers when not.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import HealthCheck, settings

from runtime.embedded import EmbeddedKafka, EmbeddedRedis, EmbeddedServers, ServersAddress

CHOICES = ("embedded", "docker")

# How long something takes is never a failure. With CI set, a run repeats the examples of the one before, so
# that a change is judged by what it changes; without, each run tries others.
settings.register_profile(
    "orderflow",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("orderflow")

pytest.register_assert_rewrite("tests.support.bus_suite")  # its assertions show their values, too


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServersAddress]:
    """A Kafka and a Redis that all tests share. Never kill these; see `own_kafka`, `own_redis`."""
    from tests.containers import container_servers, docker_answers

    chosen = os.environ.get("ORDERFLOW_TEST_SERVERS") or ("docker" if docker_answers() else None)
    if chosen not in (None, *CHOICES):
        raise pytest.UsageError(f"ORDERFLOW_TEST_SERVERS is {chosen!r}, not one of {CHOICES}")
    with ExitStack() as stack:
        if chosen == "docker":
            address = stack.enter_context(container_servers())
        else:
            home = tmp_path_factory.mktemp("servers")
            address = stack.enter_context(EmbeddedServers(home)).address
        SHARED.append(address)
        stack.callback(SHARED.clear)
        yield address


SHARED: list[ServersAddress] = []
"""The servers that all tests share, once one has asked for them."""


@pytest.fixture(scope="module", autouse=True)
def _topics_go_with_their_module() -> Iterator[None]:
    """A broker with thousands of old topics answers every client late: each asks for all of them."""
    yield
    for address in SHARED:
        client = AdminClient({"bootstrap.servers": address.bootstrap_servers})
        names = [name for name in client.list_topics(timeout=30).topics if name[:2] != "__"]
        if names:
            for future in client.delete_topics(names, request_timeout=60).values():
                future.result()


@pytest.fixture
def prefix() -> str:
    """A topic prefix of the test's own: tests share the servers, not the topics."""
    return f"t{uuid.uuid4().hex[:12]}"


EmbeddedFactory = Callable[[Path], EmbeddedServers]


@pytest.fixture
def embedded_factory() -> Iterator[EmbeddedFactory]:
    """Starts servers on a home folder; all are stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda home: stack.enter_context(EmbeddedServers(home))


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of the test's own, to kill and restart. Embedded, whatever the others use."""
    with EmbeddedKafka(tmp_path) as kafka:
        yield kafka


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of the test's own, to kill, flush and restart."""
    with EmbeddedRedis(tmp_path) as store:
        yield store
