"""How Faust's clients (aiokafka) reach the brokers: addresses, TLS, SASL, from the same settings.

`runtime/kafka.py` does the same for librdkafka, the client of everything else.
"""

from __future__ import annotations

import ssl
from typing import Any

from runtime.kafka import KafkaNotConfigured
from runtime.settings import Settings


def addresses(settings: Settings) -> list[str]:
    """`host:port` of the brokers. Raises KafkaNotConfigured."""
    if settings.kafka_bootstrap_servers is None:
        raise KafkaNotConfigured(KafkaNotConfigured.__doc__)
    return [one.strip() for one in settings.kafka_bootstrap_servers.split(",") if one.strip()]


def aiokafka_options(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client needs to connect. Raises KafkaNotConfigured, or OSError for a bad file."""
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": addresses(settings),
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username or "",
            "sasl_plain_password": password.get_secret_value() if password else "",
        }
    return options


def _tls(settings: Settings) -> ssl.SSLContext:
    """Verifies the brokers' certificate and name; shows the client's certificate if there is one."""
    ca = settings.kafka_ssl_ca_location
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if settings.kafka_ssl_certificate_location is not None:
        key = settings.kafka_ssl_key_location
        context.load_cert_chain(
            str(settings.kafka_ssl_certificate_location), str(key) if key else None
        )
    return context
