"""The AsyncAPI 3.0 document of the pipeline, from the tables of topics and aggregates. Pure.

Seen from the pipeline: it receives commands, and sends events, history, outcomes, replies and dead
letters. Payloads are the files of schemas/json, examples the golden files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

import yaml

from commands.aggregate import Aggregate
from commands.parking import ORDERS
from orderflow.contract.golden import HEADERS
from orderflow.contract.header_schemas import Schema
from orderflow.contract.messages import PARKING, RECORDS
from orderflow.reference import sentence
from runtime.settings import Settings
from sagas import AGGREGATES, by_name
from schemas.ids import ID_PATTERN, MAX_ID_LENGTH
from schemas.parking import Action, Parked, ParkedNotice
from schemas.records import Outcome
from schemas.saga import SagaEnd
from schemas.topics import SAGA, Topics, TopicSpec
from schemas.upcasting import version_of
from schemas.webhook import Delivery

FILE: Final = "schemas/asyncapi.yaml"
KAFKA_BINDING: Final = "0.5.0"
SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
_PREFIX: Final = "{prefix}"
_NUMBERS: Final = re.compile(r"-?[0-9]+")
_ID: Final[Schema] = {"type": "string", "pattern": ID_PATTERN, "maxLength": MAX_ID_LENGTH}

_SHARED: Final = {
    Outcome: "outcome",
    SagaEnd: "saga_end",
    Delivery: "delivery",
    ParkedNotice: "parking/parked_notice",
    Parked: "parking/parked",
    Action: "parking/action",
}
"""Messages that belong to no one aggregate, and their files."""

Golden = Mapping[str, Any]
"""Path of a message -> its newest golden record."""

_ABOUT: Final = {
    "commands": "Commands of the aggregate `{0}`; key: its id.",
    "events": "Compacted: of each `{0}` the newest event with the whole state after it; key: its id.",
    "history": "Every event of the aggregate `{0}`, for ever; key: its id.",
    "outcomes": "What became of each command of the aggregate `{0}`; key: its id, `/`, command id.",
    "replies": "Outcomes again, for senders that wait, on the partition that each of them asked for.",
    "webhook-deliveries": "What became of each delivery to a webhook; key: the webhook's id.",
    "parked": "Commands of the aggregate `{0}` that wait: one could not be judged; key: its id, `/`, offset.",
    "audit": "What operators did about records that could not be handled, for ever.",
    "dead-letters": "What could not be read or handled, bytes untouched; the cause is in the headers.",
}


def document(golden: Golden) -> Schema:
    """The whole document. Raises KeyError for a message without a golden record."""
    topics = Topics(_PREFIX, int(Settings.model_fields["partitions"].default))
    channels = {_name(spec): _channel(spec) for spec in topics.specs()}
    found = dict(_messages(golden))
    for channel, messages in _on(found).items():
        channels[channel]["messages"] = {
            name: {"$ref": f"#/components/messages/{name}"} for name in messages
        }
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "servers": {"kafka": _server()},
        "channels": channels,
        "operations": _operations(channels),
        "components": {"messages": found},
    }


def text_of(golden: Golden) -> str:
    """As it stands in its file."""
    head = "# Made by `python -m orderflow.schema_files` from the code; edit that.\n"
    plain = json.loads(json.dumps(document(golden)))  # no enums, no anchors for what stands twice
    return head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)


def _info() -> Schema:
    return {
        "title": "orderflow",
        "version": version("orderflow"),
        "description": (
            "Orders, stock, payments and users over Kafka. Commands go in; events, states and outcomes "
            "come out, each exactly once. Read with isolation.level=read_committed; produce with Kafka's "
            "murmur2 partitioner. docs/WIRE_FORMAT.md says the rest, docs/SCHEMAS.md how messages change."
        ),
        "license": {"name": "MIT"},
    }


def _server() -> Schema:
    return {
        "host": "{host}:{port}",
        "protocol": "kafka",
        "description": "Any broker of the cluster; `KAFKA_BOOTSTRAP_SERVERS`.",
        "variables": {
            "host": {"default": "localhost", "description": "Name or address of a broker."},
            "port": {"default": "9092", "description": "Its port."},
        },
        "bindings": {"kafka": {"bindingVersion": KAFKA_BINDING}},
    }


def _name(spec: TopicSpec) -> str:
    return spec.name.removeprefix(f"{_PREFIX}.")


def _channel(spec: TopicSpec) -> Schema:
    aggregate, _, kind = _name(spec).rpartition(".")
    prefix = Settings.model_fields["topic_prefix"]
    return {
        "address": spec.name,
        "description": _ABOUT[kind].format(aggregate),
        "parameters": {
            "prefix": {"default": prefix.default, "description": prefix.description or ""}
        },
        "messages": {},
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "topicConfiguration": {key: _option(key, v) for key, v in spec.config.items()},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _option(name: str, value: str) -> Any:
    if name == "cleanup.policy":
        return value.split(",")
    return int(value) if _NUMBERS.fullmatch(value) else value


def _on(found: Mapping[str, Schema]) -> dict[str, list[str]]:
    """Channel -> its messages. A message is called after its channel, but for what stands on several."""
    on: dict[str, list[str]] = {}
    for name in found:
        channel = name.rpartition(".")[0]
        if channel:
            on.setdefault(channel, []).append(name)
    for aggregate in AGGREGATES:
        on[f"{aggregate.name}.outcomes"] = ["Outcome"]
        on[f"{aggregate.name}.parked"] = ["Parked"]
        orders = on.setdefault(f"{aggregate.name}.commands", [])
        orders += [order.__name__ for order in ORDERS]
    on["replies"] = ["Outcome", "SagaEnd", "ParkedNotice"]
    on["audit"] = ["Action"]
    on["webhook-deliveries"] = ["Delivery"]
    return on


def _messages(golden: Golden) -> Iterator[tuple[str, Schema]]:
    for aggregate in AGGREGATES:
        yield from _commands(aggregate, golden)
        yield from _events(aggregate, golden)
    for reply, path in _SHARED.items():
        record = golden[f"{RECORDS}/{reply.__name__}.v1"]
        yield reply.__name__, _message(reply, f"json/{path}.json", "written", record, _key())
    for order in ORDERS:
        record = golden[f"{PARKING}/{order.__name__}.v{version_of(order)}"]
        file = f"json/parking/commands/{order.__name__}.json"
        yield order.__name__, _message(order, file, "command", record, _key(_ID))
    letter = golden[f"{RECORDS}/DeadLetter.v1"]
    yield (
        "dead-letters.DeadLetter",
        {
            "title": "DeadLetter",
            "summary": "A record as it came, whatever it is, with what is wrong with it.",
            "contentType": "application/octet-stream",
            "headers": _ref("json/headers/dead-letter.json"),
            "payload": {"description": "The bytes that came."},
            "bindings": _key(),
            "examples": [{"headers": letter["headers"], "payload": letter["value"]}],
        },
    )


def _commands(aggregate: Aggregate, golden: Golden) -> Iterator[tuple[str, Schema]]:
    owner = aggregate.name
    for model in aggregate.commands:
        record = golden[f"{owner}/{model.__name__}.v{version_of(model)}"]
        file = f"json/{owner}/commands/{model.__name__}.json"
        yield (
            f"{owner}.commands.{model.__name__}",
            _message(model, file, "command", record, _key(_ID)),
        )


def _events(aggregate: Aggregate, golden: Golden) -> Iterator[tuple[str, Schema]]:
    owner, root, part = aggregate.name, aggregate.root_type, aggregate.part_type
    state = golden[f"{owner}/{root.__name__}.v{version_of(root)}"]
    states = {key: state[key] for key in ("state_version", "state") if key in state}
    for event in aggregate.events:
        name, key = event.__name__, _key(_ID)
        record = golden[f"{owner}/{name}.v{version_of(event)}"]
        file = f"json/{owner}/events/{name}.json"
        yield f"{owner}.events.{name}", _message(event, file, "written", record | states, key)
        file = f"json/{owner}/history/{name}.json"
        yield f"{owner}.history.{name}", _message(event, file, "written", record, key)
    if part is not None:
        name, key = part.__name__, _key()
        record = golden[f"{owner}/{name}.v{version_of(part)}"]
        file = f"json/{owner}/events/{name}.json"
        yield f"{owner}.events.{name}", _message(part, file, "written", record, key)
    yield (
        f"{owner}.events.Tombstone",
        {
            "title": "Tombstone",
            "summary": "No value: the aggregate, or a part of it, is deleted.",
            "headers": _ref("json/headers/tombstone.json"),
            "payload": {"type": "null"},
            "bindings": _key(),
            "examples": [{"headers": golden[f"{RECORDS}/Tombstone.v1"]["headers"]}],
        },
    )


def _message(subject: type, file: str, headers: str, record: Golden, bindings: Schema) -> Schema:
    return {
        "name": subject.__name__,
        "title": subject.__name__,
        "summary": sentence(subject.__doc__),
        "headers": _ref(f"json/headers/{headers}.json"),
        "correlationId": {"location": "$message.header#/correlation-id"},
        "payload": _ref(file),
        "bindings": bindings,
        "examples": [{"headers": dict(HEADERS), "payload": record}],
    }


def _ref(file: str) -> Schema:
    return {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": file}}


def _key(schema: Schema | None = None) -> Schema:
    return {"kafka": {"key": schema or {"type": "string"}, "bindingVersion": KAFKA_BINDING}}


def _operations(channels: Mapping[str, Any]) -> Schema:
    found: Schema = {}
    for name in channels:
        aggregate, _, kind = name.rpartition(".")
        action = "receive" if kind == "commands" else "send"
        operation = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": _ABOUT[kind].format(aggregate),
        }
        if action == "receive":
            replies = ["Outcome", *(["SagaEnd"] if by_name[aggregate].name == SAGA else [])]
            operation["reply"] = {
                "channel": {"$ref": "#/channels/replies"},
                "messages": [{"$ref": f"#/channels/replies/messages/{r}"} for r in replies],
            }
        found[f"{action}.{name}"] = operation
    return found
