"""The servers in containers, for machines with a Docker engine. Used by the fixture `servers` only.

Same broker settings as the embedded one, from the same table, so a test means the same on both.
The Kafka container of testcontainers drives another vendor's image, hence one of our own.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer

from runtime.embedded import ServersAddress
from runtime.embedded.jars import KAFKA
from runtime.embedded.kafka import BROKER_OPTIONS
from runtime.embedded.ports import free_port

KAFKA_IMAGE = f"apache/kafka:{KAFKA.rpartition(':')[2]}"
REDIS_IMAGE = "redis:7.2-alpine"
REDIS_PORT = 6379
CONTROLLER_PORT = 19093
ENGINE_ANSWERS_WITHIN_S = 2
READY_WITHIN_S = 90.0
READY_CHECK_S = 0.2


def docker_answers() -> bool:
    """True if a Docker engine can be reached from here."""
    import docker

    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        try:
            engine = docker.from_env(timeout=ENGINE_ANSWERS_WITHIN_S)
            try:
                return bool(engine.ping())
            finally:
                engine.close()
        except Exception:  # noqa: BLE001 - whatever is wrong with it, there is no engine to use
            return False
        finally:
            gc.collect()  # docker leaves its socket open where nobody answers: not our tests' warning


class KafkaNode(DockerContainer):
    """The official image as one node. The port is the same inside and outside: clients are told
    the advertised address, which has to be known before the container starts."""

    def __init__(self, image: str = KAFKA_IMAGE) -> None:
        super().__init__(image)
        self._host_port = free_port()
        self.with_bind_ports(self._host_port, self._host_port)
        for name, value in self._options().items():
            self.with_env(name, value)

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.get_docker_client().host()}:{self._host_port}"

    def _options(self) -> dict[str, str]:
        """In this image every KAFKA_* variable is a broker setting: upper case, _ for the dots."""
        options = BROKER_OPTIONS | {
            "listeners": f"PLAINTEXT://:{self._host_port},CONTROLLER://:{CONTROLLER_PORT}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"1@localhost:{CONTROLLER_PORT}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": "/tmp/kafka-data",
        }
        return {
            f"KAFKA_{key.upper().replace('.', '_')}": value
            for key, value in options.items()
            if value  # an empty variable would not be taken for an empty setting
        }


@contextmanager
def container_servers() -> Iterator[ServersAddress]:
    """Both servers, ready; removed at the end."""
    store = DockerContainer(REDIS_IMAGE).with_exposed_ports(REDIS_PORT)
    store.with_command("redis-server --appendonly yes --maxmemory-policy noeviction --save ''")
    with ExitStack() as stack:
        node = stack.enter_context(KafkaNode())
        stack.enter_context(store)
        host, port = store.get_container_host_ip(), store.get_exposed_port(REDIS_PORT)
        address = ServersAddress(node.bootstrap_servers, f"redis://{host}:{port}/0")
        _wait_until_ready(address)
        yield address


def _wait_until_ready(address: ServersAddress) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not (_kafka_answers(address) and _redis_answers(address)):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the containers did not answer within {READY_WITHIN_S} s: {address}"
            )
        time.sleep(READY_CHECK_S)


def _kafka_answers(address: ServersAddress) -> bool:
    admin = AdminClient({"bootstrap.servers": address.bootstrap_servers, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _redis_answers(address: ServersAddress) -> bool:
    with redis.Redis.from_url(address.redis_url, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
