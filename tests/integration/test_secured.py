"""A broker that wants TLS and a password: every client of the pipeline gets in with the settings alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from readmodels import Queries, rebuild
from runtime import kafka, topic_admin
from runtime.client import CommandClient
from runtime.embedded import EmbeddedKafka, ServersAddress
from runtime.embedded.ports import LOOPBACK, free_port
from runtime.settings import Settings
from tests.support.commanding import command
from tests.support.processes import RoleProcess, environment

USER, PASSWORD = "pipeline", "open sesame"


class SecuredKafka(EmbeddedKafka):
    """The embedded broker with one more listener: TLS, and SASL PLAIN over it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, heap="384m")
        self._secured_port = free_port()
        self._authority = trustme.CA()
        self.ca = home / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    @property
    def secured(self) -> str:
        return f"{LOOPBACK}:{self._secured_port}"

    def _write_settings(self, port: int) -> None:
        super()._write_settings(port)
        self._write_certificate()
        path = self.data / "server.properties"
        text = path.read_text()
        listeners = (
            f"{re.findall('^listeners=(.*)$', text, re.MULTILINE)[0]},SASL_SSL://{self.secured}"
        )
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        more = {  # the last of two lines with the same name counts
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "server.pem",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
        }
        path.write_text(text + "".join(f"{name}={value}\n" for name, value in more.items()))

    def _write_certificate(self) -> None:
        issued = self._authority.issue_cert(LOOPBACK)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.data / "server.pem").write_bytes(pkcs8 + chain)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


@pytest.fixture
def env(
    secured: SecuredKafka, servers: ServersAddress, prefix: str, tmp_path: Path
) -> dict[str, str]:
    address = ServersAddress(secured.secured, servers.redis_url)
    return environment(
        address,
        prefix,
        tmp_path,
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="PLAIN",
        KAFKA_SASL_USERNAME=USER,
        KAFKA_SASL_PASSWORD=PASSWORD,
        KAFKA_SSL_CA_LOCATION=str(secured.ca),
    )


def test_commands_views_and_rebuild_work_over_tls_with_a_password(
    env: dict[str, str], tmp_path: Path
) -> None:
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    with (
        RoleProcess("processors", env, tmp_path / "processor.log"),
        RoleProcess("readmodels", env, tmp_path / "projector.log"),
        CommandClient(settings) as client,
        Queries(settings) as queries,
    ):
        outcome = client.execute(command("ada", "RegisterUser", name="Ada"))
        queries.wait_for("users", "ada", outcome.version, timeout=30)
        assert rebuild(settings).equal
        assert queries.user("ada") is not None


@pytest.mark.parametrize(
    "wrong", [{"KAFKA_SASL_PASSWORD": "guessed"}, {"KAFKA_SSL_CA_LOCATION": None}]
)
def test_a_wrong_password_or_an_unknown_authority_is_refused(
    env: dict[str, str], wrong: dict[str, str | None]
) -> None:
    """Else the test above would prove little."""
    settings = Settings.model_validate({k: v for k, v in (env | wrong).items() if v is not None})
    admin = AdminClient(kafka.admin(settings) | {"log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=3)
