"""A whole pipeline under this process: servers if nobody else has any, topics, and every role.

What `orderflow up` and `orderflow demo` have in common. Stops in the reverse order of the start, so
a processor ends its transaction and a projector its batch while the servers are still there.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from orderflow.servers import (
    check_kafka,
    check_redis,
    environment_of,
    wants_embedded,
    with_address,
)
from orderflow.supervisor import LOG_LIMIT_BYTES, Child, Supervisor, role
from runtime import topic_admin
from runtime.embedded import EmbeddedServers
from runtime.embedded.ports import free_port
from runtime.private_files import keep_small, secure_home
from runtime.settings import Settings

ROLE_ARGUMENTS: Final = {"webhooks": ("deliver",)}
"""What a role's command needs beside its name."""

OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Roles:
    """How many processes of each role; one of those that are not named here."""

    processors: int = 1
    saga_processors: int = 1
    projectors: int = 1

    def counts(self) -> dict[str, int]:
        """Role → number of processes, in the order in which they are started."""
        return {
            "processor": self.processors,
            "saga-processor": self.saga_processors,
            "reactor": 1,
            "payments": 1,
            "webhooks": 1,
            "projector": self.projectors,
            "indexer": 1,
        }


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A running pipeline. ``servers`` is None when the environment named them."""

    settings: Settings
    servers: EmbeddedServers | None
    supervisor: Supervisor

    def look_after(self) -> None:
        """Restarts what has crashed: roles after a pause, embedded servers at once.

        Raises EmbeddedServerError when a server does not come up again.
        """
        if self.servers is not None:
            for server in (self.servers.kafka, self.servers.redis):
                if not server.running:
                    server.start()
                keep_small(server.log, LOG_LIMIT_BYTES)
        self.supervisor.look_after()


@contextmanager
def running_pipeline(
    settings: Settings, roles: Roles, on_progress: OnProgress
) -> Iterator[Pipeline]:
    """Starts everything and stops it at the end.

    Raises EmbeddedServerError, KafkaException, RedisError, TopicsUnfit; then nothing is left
    running.
    """
    secure_home(settings.home)
    with ExitStack() as stack:
        servers = None
        if wants_embedded(settings):
            servers = EmbeddedServers(settings.home, on_progress=on_progress)
            stack.enter_context(servers)
            settings = with_address(settings, servers.address)
        check_kafka(settings)
        check_redis(settings)
        on_progress("applying the topics", None)
        topic_admin.apply(settings)
        on_progress("starting the roles", None)
        supervisor = stack.enter_context(Supervisor(_children(settings, roles)))
        yield Pipeline(settings, servers, supervisor)


def _children(settings: Settings, roles: Roles) -> list[Child]:
    """The roles' processes; with a simulated payment gateway, where the environment names none."""
    logs = settings.home.absolute() / "logs"
    children: list[Child] = []
    if settings.gateway_url is None:
        port = free_port()
        settings = settings.model_copy(update={"gateway_url": f"http://127.0.0.1:{port}"})
        arguments = ("--port", str(port))
        children.append(role("gateway", environment_of(settings), logs, arguments=arguments))
    environment = environment_of(settings)
    children += [
        role(
            name,
            environment,
            logs,
            f"{name}-{number}" if count > 1 else name,
            ROLE_ARGUMENTS.get(name, ()),
        )
        for name, count in roles.counts().items()
        for number in range(1, count + 1)
    ]
    return children


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of tearing the process out of what it does.

    The handlers that were there come back at the end. Main thread only.
    """
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
