"""docker-compose.yml and Dockerfile, as far as they can be judged without a container engine.

The Compose specification's own JSON Schema comes with the package check-jsonschema.
"""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from runtime.embedded.kafka import BROKER_OPTIONS
from runtime.settings import KAFKA_OPTION_PREFIX, Settings
from tests.containers import KAFKA_IMAGE, REDIS_IMAGE
from tests.support.command_lines import parse

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
SERVERS = {name: service for name, service in SERVICES.items() if "build" not in service}
SCALED = {
    "processor",
    "saga-processor",
    "reactor",
    "payments",
    "projector",
    "indexer",
    "verifier",
    "webhooks",
}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")

NO_OPTIONS = {"CLUSTER_ID", "KAFKA_HEAP_OPTS"}
"""Variables of the Kafka image that are no broker options."""

of_every_service = pytest.mark.parametrize("name", SERVICES)
of_our_services = pytest.mark.parametrize("name", OURS)


def test_the_file_is_what_the_compose_specification_allows() -> None:
    package = metadata.distribution("check-jsonschema")
    vendored = package.locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    schema = json.loads(Path(str(vendored)).read_text("utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


def test_the_services_are_the_two_servers_and_the_roles() -> None:
    assert set(SERVERS) == {"kafka", "redis"}
    assert set(OURS) == {"topics", *SCALED, "gateway", "demo"}
    assert SERVICES["demo"]["profiles"] == ["demo"]
    assert not any("profiles" in service for name, service in SERVICES.items() if name != "demo")


@of_our_services
def test_every_command_is_one_of_the_console_script(name: str) -> None:
    assert parse(OURS[name]["command"])[0] == name


@of_every_service
def test_every_image_is_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.match(r"\d+\.\d+", tag), f"{tag!r} names no version"


def test_the_servers_are_those_of_the_tests() -> None:
    assert SERVICES["kafka"]["image"] == KAFKA_IMAGE
    assert SERVICES["redis"]["image"] == REDIS_IMAGE


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_says_when_it_is_ready(name: str) -> None:
    check = SERVERS[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)


@of_every_service
def test_every_service_may_do_only_what_it_has_to(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "ports" not in service
    if (
        name != "kafka"
    ):  # its image writes its configuration at start, and runs as appuser by itself
        assert service["user"] not in {"root", "0"}
        assert service["read_only"] is True


@pytest.mark.parametrize("name", sorted(SCALED))
def test_a_service_that_is_scaled_shares_neither_name_nor_port_nor_state(name: str) -> None:
    service = SERVICES[name]
    assert not {"container_name", "hostname", "ports"} & set(service)
    assert service["volumes"] == ["/var/lib/orderflow"]
    assert service["tmpfs"]
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "30s"


@pytest.mark.parametrize("name", sorted(SCALED | {"demo"}))
def test_the_roles_start_when_the_servers_answer_and_the_topics_are_there(name: str) -> None:
    assert {other: on["condition"] for other, on in SERVICES[name]["depends_on"].items()} == {
        "kafka": "service_healthy",
        "redis": "service_healthy",
        "topics": "service_completed_successfully",
    }


@of_our_services
def test_every_variable_is_a_setting(name: str) -> None:
    environment = OURS[name]["environment"]
    known = {field.alias for field in Settings.model_fields.values()}
    unknown = {
        variable
        for variable in environment
        if variable not in known and not variable.startswith(KAFKA_OPTION_PREFIX)
    }
    assert not unknown
    assert all(isinstance(value, str) for value in environment.values())
    settings = Settings.model_validate(environment)
    assert settings.kafka_bootstrap_servers == "kafka:9092"
    assert settings.redis_url is not None


def test_the_broker_is_set_up_as_the_embedded_one() -> None:
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
        if name not in NO_OPTIONS
    }
    own = {"controller.quorum.voters", "inter.broker.listener.name", "listeners"}
    own |= {"advertised.listeners", "listener.security.protocol.map", "log.dirs"}
    assert {name: BROKER_OPTIONS.get(name) for name in set(given) - own} == {
        name: value for name, value in given.items() if name not in own
    }


def test_redis_keeps_what_it_has_and_refuses_what_it_cannot_hold() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_image_runs_the_console_script_as_nobody_special() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert 'ENTRYPOINT ["orderflow"]' in final
    assert re.search(r"^USER orderflow$", final, re.MULTILINE)
    assert "ORDERFLOW_HOME=/var/lib/orderflow" in final
    assert re.search(r"^VOLUME /var/lib/orderflow$", final, re.MULTILINE)
    assert re.search(r"^ARG PYTHON=python:3\.11-slim", DOCKERFILE, re.MULTILINE)


def test_everything_that_is_installed_into_the_image_is_held_to_its_hash() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*)", joined)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or "--no-index" in options


def test_the_engine_gets_everything_that_the_dockerfile_copies() -> None:
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in line.split()
    }
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert copied == {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((ROOT / path).exists() for path in copied)
