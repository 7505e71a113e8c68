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

from runtime.embedded import EmbeddedKafka, EmbeddedRedis, EmbeddedServers, ServersAddress

CHOICES = ("embedded", "docker")

pytest.register_assert_rewrite("tests.support.bus_suite")  # its assertions show their values, too


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServersAddress]:
    """A Kafka and a Redis that all tests share. Never kill these; see `own_kafka`, `own_redis`."""
    from tests.containers import container_servers, docker_answers

    chosen = os.environ.get("ORDERFLOW_TEST_SERVERS") or ("docker" if docker_answers() else None)
    if chosen not in (None, *CHOICES):
        raise pytest.UsageError(f"ORDERFLOW_TEST_SERVERS is {chosen!r}, not one of {CHOICES}")
    if chosen == "docker":
        with container_servers() as address:
            yield address
    else:
        with EmbeddedServers(tmp_path_factory.mktemp("servers")) as running:
            yield running.address


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
