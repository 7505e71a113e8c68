"""All settings, from the environment (12-factor). README.md has the same table; a test holds them
equal.

Anything not listed here but meant for the Kafka clients is passed through: every variable named
``KAFKA_OPTION_<librdkafka option with _ for .>``.
"""

import os
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


class Settings(BaseSettings):
    """One instance a process. Raises pydantic's ValidationError, which names the variable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    kafka_bootstrap_servers: str | None = Field(
        None,
        alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Brokers, host:port with commas. Unset: the embedded one.",
    )
    kafka_security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", alias="KAFKA_SECURITY_PROTOCOL", description="How to talk to the brokers."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", alias="KAFKA_SASL_MECHANISM", description="With SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_username: str | None = Field(
        None, alias="KAFKA_SASL_USERNAME", description="SASL user."
    )
    kafka_sasl_password: SecretStr | None = Field(
        None, alias="KAFKA_SASL_PASSWORD", description="SASL password; never printed."
    )
    kafka_ssl_ca_location: Path | None = Field(
        None, alias="KAFKA_SSL_CA_LOCATION", description="CA file (PEM) that signed the brokers."
    )
    kafka_ssl_certificate_location: Path | None = Field(
        None, alias="KAFKA_SSL_CERTIFICATE_LOCATION", description="Client certificate (PEM)."
    )
    kafka_ssl_key_location: Path | None = Field(
        None, alias="KAFKA_SSL_KEY_LOCATION", description="Client key (PEM)."
    )
    redis_url: SecretStr | None = Field(
        None,
        alias="REDIS_URL",
        description="redis:// or rediss:// URL; for a cluster redis+cluster:// or rediss+cluster:// with "
        "some of its nodes, host:port with commas. Unset: the embedded one.",
    )
    topic_prefix: str = Field(
        "orderflow",
        alias="ORDERFLOW_TOPIC_PREFIX",
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$",
        description="Begins the name of every topic, consumer group and Redis key.",
    )
    home: Path = Field(
        Path(".orderflow"),
        alias="ORDERFLOW_HOME",
        description="Local state of processors, embedded servers' data, logs.",
    )
    partitions: int = Field(
        4,
        alias="ORDERFLOW_PARTITIONS",
        ge=1,
        le=1024,
        description="Partitions of each aggregate's topics; fixed once they exist.",
    )
    replication: int = Field(
        1,
        alias="ORDERFLOW_REPLICATION",
        ge=1,
        le=9,
        description="Replication factor of the topics; 3 in production.",
    )
    batch_size: int = Field(
        3000,
        alias="ORDERFLOW_BATCH_SIZE",
        ge=1,
        le=10_000,
        description="Most commands in one transaction, which is also full with 32 MiB to write.",
    )
    batch_ms: int = Field(
        0,
        alias="ORDERFLOW_BATCH_MS",
        ge=0,
        le=10_000,
        description="Longest wait for a batch to fill, milliseconds. 0: a batch is what came while the "
        "one before it was committed.",
    )
    gateway_url: str | None = Field(
        None,
        alias="ORDERFLOW_GATEWAY_URL",
        pattern=r"^https?://",
        description="Payment gateway that `orderflow payments` asks; it does not start without.",
    )
    gateway_timeout_ms: int = Field(
        10_000,
        alias="ORDERFLOW_GATEWAY_TIMEOUT_MS",
        ge=100,
        le=120_000,
        description="Longest wait for one answer of the gateway, milliseconds; then it is asked again.",
    )
    saga_timeout_ms: int = Field(
        10_000,
        alias="ORDERFLOW_SAGA_TIMEOUT_MS",
        ge=10,
        le=3_600_000,
        description="First wait for the answers to a saga's step, milliseconds; it doubles with each "
        "attempt, and all other waits of sagas are in proportion.",
    )
    sync_url: SecretStr | None = Field(
        None,
        alias="ORDERFLOW_SYNC_URL",
        description="Database that `orderflow sync sql` keeps, as URL; never printed. Unset: a SQLite file"
        " in ORDERFLOW_HOME.",
    )
    webhook_timeout_ms: int = Field(
        15_000,
        alias="ORDERFLOW_WEBHOOK_TIMEOUT_MS",
        ge=100,
        le=120_000,
        description="Longest wait for the answer of a webhook's endpoint, milliseconds.",
    )
    webhook_retry_ms: int = Field(
        5_000,
        alias="ORDERFLOW_WEBHOOK_RETRY_MS",
        ge=1,
        le=60_000,
        description="Longest pause before a failed delivery is tried a second time, milliseconds; it "
        "doubles with each attempt, up to 720 times as long (an hour).",
    )
    webhook_allowed_networks: str | None = Field(
        None,
        alias="ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS",
        description="Networks that are not public and may have webhooks all the same, e.g. "
        "`10.1.0.0/16,::1`. Everything else that is private or special is refused.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="ORDERFLOW_LOG_LEVEL", description="What the roles log on standard error."
    )

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _are_networks(cls, text: str | None) -> str | None:
        for network in networks(text):
            if network.prefixlen == 0:
                raise ValueError("a network of all addresses would allow everything")
        return text


def networks(text: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks or addresses with commas between them. Raises ValueError, which names the wrong one."""
    return tuple(ip_network(each.strip()) for each in (text or "").split(",") if each.strip())


KAFKA_OPTION_PREFIX = "KAFKA_OPTION_"


@lru_cache(maxsize=1)
def kafka_options() -> dict[str, str]:
    """librdkafka options passed through from ``KAFKA_OPTION_*``, e.g. ``KAFKA_OPTION_SOCKET_TIMEOUT_MS``."""
    return {
        name.removeprefix(KAFKA_OPTION_PREFIX).lower().replace("_", "."): value
        for name, value in os.environ.items()
        if name.startswith(KAFKA_OPTION_PREFIX)
    }
