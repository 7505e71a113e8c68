"""Finds the servers: what the environment names, else what `orderflow up` runs under this home."""

from contextlib import closing
from typing import Final

import redis
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from runtime import kafka
from runtime.embedded import EmbeddedServers, ServersAddress
from runtime.redis import ClusterNotSaid, is_cluster, new_line
from runtime.settings import Settings

ANSWER_WITHIN_S: Final = 8.0


class ServersNotFound(RuntimeError):
    """No address in the environment, and no embedded servers under the home."""


def located(settings: Settings) -> Settings:
    """The settings with both addresses filled in. Raises ServersNotFound."""
    if settings.kafka_bootstrap_servers and settings.redis_url:
        return settings
    found = EmbeddedServers.discover(settings.home)
    if found is not None:
        return with_address(settings, found)
    unset = [
        name
        for name, value in (
            ("KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers),
            ("REDIS_URL", settings.redis_url),
        )
        if not value
    ]
    raise ServersNotFound(
        f"{' and '.join(unset)} not set, and no embedded servers run under {settings.home} "
        "(ORDERFLOW_HOME)."
    )


def with_address(settings: Settings, address: ServersAddress) -> Settings:
    """The settings with the addresses that they do not name themselves."""
    return settings.model_copy(
        update={
            "kafka_bootstrap_servers": settings.kafka_bootstrap_servers
            or address.bootstrap_servers,
            "redis_url": settings.redis_url or SecretStr(address.redis_url),
        }
    )


def wants_embedded(settings: Settings) -> bool:
    """Whether the environment leaves a server to us. Both are started then, the named one is used."""
    return not (settings.kafka_bootstrap_servers and settings.redis_url)


def check_kafka(settings: Settings, within_s: float = ANSWER_WITHIN_S) -> int:
    """Number of brokers. Raises KafkaException when none answers: clients alone would wait for long."""
    options = kafka.admin(settings) | {"log_level": 0}
    return len(AdminClient(options).list_topics(timeout=within_s).brokers)


def check_redis(settings: Settings, within_s: float = ANSWER_WITHIN_S) -> str:
    """The server's version; of a cluster, once all its masters have answered. Raises RedisError when one does
    not, or when the settings do not say that it is a cluster.
    """
    if is_cluster(settings):
        with closing(new_line(settings)) as line:
            (said,) = line.run([("INFO", "server")])
        name, versions = "redis_version:", str(said).split()
        return next(word.removeprefix(name) for word in versions if word.startswith(name))
    url = settings.redis_url.get_secret_value() if settings.redis_url else ""
    with redis.Redis.from_url(
        url,
        socket_timeout=within_s,
        socket_connect_timeout=within_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    ) as client:
        info = client.info()
        if info["cluster_enabled"]:
            raise ClusterNotSaid(ClusterNotSaid.__doc__)
        return str(info["redis_version"])


def environment_of(settings: Settings) -> dict[str, str]:
    """What a child process needs in its environment to come to these very settings."""
    from runtime.settings import Settings as Model

    environment = {}
    for name, field in Model.model_fields.items():
        value = getattr(settings, name)
        if value is None or field.alias is None:
            continue
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        environment[field.alias] = text
    return environment
