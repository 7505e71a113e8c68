"""schemas/asyncapi.yaml is valid AsyncAPI 3.0, is current, and says what topics and messages there are."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from commands.parking import ORDERS
from orderflow import schema_files
from orderflow.contract import asyncapi
from orderflow.contract.messages import Kind, current
from sagas import AGGREGATES
from schemas.topics import Topics

FOLDER = schema_files.ROOT / "schemas"
OFFICIAL = Path(__file__).parents[1] / "support/asyncapi/3.0.0.json"
DOCUMENT: dict[str, Any] = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text("utf-8"))
CHANNELS = DOCUMENT["channels"]
MESSAGES = DOCUMENT["components"]["messages"]


def test_it_is_what_the_code_says() -> None:
    assert schema_files.ROOT / asyncapi.FILE not in schema_files.differences()


def test_it_is_valid_by_the_official_schema() -> None:
    official = json.loads(OFFICIAL.read_text("utf-8"))
    jsonschema.Draft7Validator(official).validate(DOCUMENT)
    broken = DOCUMENT | {"operations": {"x": {"action": "publish", "channel": {"$ref": "#/a"}}}}
    assert not jsonschema.Draft7Validator(official).is_valid(broken)


def test_every_topic_is_a_channel_with_its_partitions_and_options() -> None:
    specs = {spec.name: spec for spec in Topics("{prefix}", 4).specs()}
    assert {channel["address"] for channel in CHANNELS.values()} == set(specs)
    for channel in CHANNELS.values():
        kafka, spec = channel["bindings"]["kafka"], specs[channel["address"]]
        assert kafka["partitions"] == spec.partitions
        options = kafka["topicConfiguration"]
        assert options.pop("cleanup.policy") == [spec.config["cleanup.policy"]]
        given = {name: value for name, value in spec.config.items() if name != "cleanup.policy"}
        assert {name: str(value) for name, value in options.items()} == given


def test_every_message_stands_on_a_channel_and_every_reference_leads_somewhere() -> None:
    on = [ref["$ref"] for channel in CHANNELS.values() for ref in channel["messages"].values()]
    assert {f"#/components/messages/{name}" for name in MESSAGES} == set(on)
    for reference in references(DOCUMENT):
        if not reference.startswith("#"):
            assert (FOLDER / reference).is_file()
            continue
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    assert all(channel["messages"] for channel in CHANNELS.values())


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for item in node for ref in references(item)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return here + [ref for item in node.values() for ref in references(item)]


def test_every_command_and_event_is_in_it() -> None:
    orders = {order.__name__ for order in ORDERS}
    commands = (m for m in current() if m.kind is Kind.COMMAND)
    wanted = {m.name if m.name in orders else f"{m.owner}.commands.{m.name}" for m in commands}
    for event in (m for m in current() if m.kind is Kind.EVENT):
        wanted |= {f"{event.owner}.events.{event.name}", f"{event.owner}.history.{event.name}"}
    assert wanted <= set(MESSAGES)
    parts = {f"{a.name}.events.{a.part_type.__name__}" for a in AGGREGATES if a.part_type}
    tombstones = {f"{a.name}.events.Tombstone" for a in AGGREGATES}
    parking = {"ParkedNotice", "Parked", "Action"}
    others = {"Outcome", "SagaEnd", "Delivery", "dead-letters.DeadLetter"} | parking
    assert set(MESSAGES) == wanted | parts | tombstones | others


@pytest.mark.parametrize("name", MESSAGES)
def test_every_example_fits_its_payload_and_headers(name: str) -> None:
    message = MESSAGES[name]
    for example in message["examples"]:
        for part in ("headers", "payload"):
            reference = message[part].get("schema", {}).get("$ref")
            if part in example and reference is not None:
                schema = json.loads((FOLDER / reference).read_text("utf-8"))
                jsonschema.validate(example[part], schema, jsonschema.Draft202012Validator)


def test_commands_are_received_and_answered_and_all_else_is_sent() -> None:
    for name, operation in DOCUMENT["operations"].items():
        action, _, channel = name.partition(".")
        assert operation["action"] == action
        assert operation["channel"] == {"$ref": f"#/channels/{channel}"}
        assert (action == "receive") is channel.endswith(".commands")
        assert ("reply" in operation) is (action == "receive")
    assert len(DOCUMENT["operations"]) == len(CHANNELS)
    answers = DOCUMENT["operations"]["receive.saga.commands"]["reply"]["messages"]
    assert answers[-1] == {"$ref": "#/channels/replies/messages/SagaEnd"}


def test_who_reads_it_learns_the_headers() -> None:
    command = MESSAGES["order.commands.CreateOrder"]
    headers = json.loads((FOLDER / command["headers"]["schema"]["$ref"]).read_text("utf-8"))
    assert {"correlation-id", "causation-id", "traceparent", "reply-partition"} <= set(
        headers["properties"]
    )
    assert command["correlationId"]["location"] == "$message.header#/correlation-id"
    assert command["bindings"]["kafka"]["key"]["pattern"]
