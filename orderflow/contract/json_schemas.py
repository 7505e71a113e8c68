"""The JSON Schema of every record's value and headers, built from the structs and models. Pure.

A schema is of one version: the current one; of a command also each older one, which is taken still.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Command, OldForm
from commands.parking import ORDERS
from orderflow.contract.header_schemas import header_schemas
from orderflow.reference import sentence
from sagas import AGGREGATES
from schemas.decoding import INT64_MAX, INT64_MIN
from schemas.ids import ID_PATTERN, MAX_ID_LENGTH
from schemas.parking import Action, Parked, ParkedNotice
from schemas.records import FIRST_VERSION, CommandRecord, EventRecord, Outcome
from schemas.saga import SagaEnd
from schemas.topics import PERSONAL
from schemas.upcasting import upcasters_of, version_of
from schemas.webhook import Delivery

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

BITS: Final = {"minimum": INT64_MIN, "maximum": INT64_MAX}

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Path below schemas/json -> JSON Schema of one message's value, for every message there is."""
    return dict(_schemas())


def _schemas() -> Iterator[tuple[str, Schema]]:
    for aggregate in AGGREGATES:
        name = aggregate.name
        for model in aggregate.commands:
            path, newest = f"{name}/commands/{model.__name__}", version_of(model)
            yield _named(path, command_schema(model, model.__name__, newest), newest)
            for version, old in old_forms(model):
                schema = command_schema(old, model.__name__, version)
                yield _named(f"{path}.v{version}", schema, version)
        keyed = name in PERSONAL
        for event in aggregate.events:
            newest = version_of(event)
            full = event_schema((event.__name__,), event, aggregate.root_type, keyed=keyed)
            yield _named(f"{name}/events/{event.__name__}", full, newest)
            bare = event_schema((event.__name__,), event, None)
            yield _named(f"{name}/history/{event.__name__}", bare, newest)
        if aggregate.part_type is not None:
            part = aggregate.part_type
            yield _named(f"{name}/events/{part.__name__}", part_schema(aggregate), version_of(part))
    yield _named("outcome", reply_schema(Outcome))
    yield _named("saga_end", reply_schema(SagaEnd))
    yield _named("delivery", reply_schema(Delivery))
    for order in ORDERS:
        name = order.__name__
        yield _named(f"parking/commands/{name}", command_schema(order, name, version_of(order)))
    yield _named("parking/parked_notice", reply_schema(ParkedNotice))
    yield _named("parking/parked", reply_schema(Parked))
    yield _named("parking/action", reply_schema(Action))
    for name, schema in header_schemas().items():
        yield _named(f"headers/{name}", schema)


def old_forms(model: type[Command]) -> Iterator[tuple[int, type[Command]]]:
    """The older versions of a command, each with the model that judges it."""
    for version, step in enumerate(upcasters_of(model), FIRST_VERSION):
        if isinstance(step, OldForm):
            yield version, step.model


def _named(path: str, schema: Schema, version: int = FIRST_VERSION) -> tuple[str, Schema]:
    identity = f"urn:orderflow:{path.replace('/', ':')}:{version}"
    return f"{path}.json", {"$schema": DIALECT, "$id": identity, **_tidy(schema)}


def _tidy(schema: Any, *, names: bool = False) -> Any:
    """Descriptions on one line, and no titles that only repeat a field's name. ``names``: the keys
    are fields, not keywords.
    """
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: Schema = {}
    for key, value in schema.items():
        if not names and key == "description":
            tidy[key] = sentence(value)
        elif names or key != "title" or "properties" in schema or "enum" in schema:
            tidy[key] = _tidy(value, names=not names and key in ("properties", "$defs"))
    return tidy


def command_schema(model: type[Command], name: str, version: int) -> Schema:
    """Envelope and data of a command, as it is in ``version``."""
    data = model.model_json_schema()
    definitions = data.pop("$defs", {})
    # The edge takes an absent `data` for an empty object, which satisfies a model without fields.
    required = ["type", "command_id", *(("data",) if data.get("required") else ())]
    id_ = {"type": "string", "pattern": ID_PATTERN, "maxLength": MAX_ID_LENGTH}
    replaced: Schema = {
        "type": {"const": name},
        "command_id": id_,
        "data": data,
        "schema_version": _version(version),
    }
    if version != FIRST_VERSION:  # without a version it is of the first
        required.append("schema_version")
    schema = _envelope(CommandRecord, replaced, required)
    return _described(schema, model, definitions)


def event_schema(
    types: tuple[str, ...],
    event: type[msgspec.Struct] | None,
    state: type[msgspec.Struct] | None,
    *,
    keyed: bool = False,
) -> Schema:
    """An event record: with ``state`` as on the events topic, without it as in the history. ``keyed``: it
    may carry the key of the aggregate's personal data.
    """
    present = {"data": event, "state": state}
    parts = {name: kind for name, kind in present.items() if kind is not None}
    references, definitions = components(parts.values())
    replaced: Schema = dict(zip(parts, references, strict=True))
    replaced["type"] = {"const": types[0]} if len(types) == 1 else {"enum": list(types)}
    required = ["type", "id", "version", "occurred_at_ms", *parts]
    left_out = set(present) - set(parts)
    if not keyed:
        left_out.add("subject_key")
    for part, its_version in (("data", "schema_version"), ("state", "state_version")):
        kind = present[part]
        if kind is None:
            left_out.add(its_version)
            continue
        replaced[its_version] = _version(version_of(kind))
        if version_of(kind) != FIRST_VERSION:
            required.append(its_version)
    schema = _envelope(EventRecord, replaced, required, left_out)
    return _described(schema, event or state or EventRecord, definitions)


def part_schema(aggregate: Aggregate) -> Schema:
    """The record of a part's own: any event may have made it; the data stands on the root's record."""
    return event_schema(
        tuple(event.__name__ for event in aggregate.events), None, aggregate.part_type
    )


def reply_schema(kind: type[msgspec.Struct]) -> Schema:
    """An outcome, how a saga ended, or what became of a delivery."""
    _, definitions = components([kind])  # the struct itself becomes the root of its file
    reply: Schema = definitions.pop(kind.__name__)
    return reply | {"$defs": definitions}


def envelope_schema(record: type[msgspec.Struct]) -> Schema:
    """A record as such, whatever its data and state are."""
    required = [field.name for field in msgspec.structs.fields(record) if field.required]
    return _envelope(record, {}, required)


def components(kinds: Iterable[type]) -> tuple[list[Schema], Schema]:
    """Return a reference to each type's schema, and the definitions that they refer to, by name."""
    references, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return [*references], _without_bits(definitions)


def _without_bits(schema: Any) -> Any:
    """Return the schema without the bounds of 64 bits, which every whole number has."""
    if isinstance(schema, dict):
        bits = BITS.items() <= schema.items()
        return {
            name: _without_bits(part)
            for name, part in schema.items()
            if not (bits and name in BITS)
        }
    return [_without_bits(part) for part in schema] if isinstance(schema, list) else schema


def _version(number: int) -> Schema:
    return {"const": number} | ({"default": number} if number == FIRST_VERSION else {})


def _envelope(
    record: type[msgspec.Struct],
    replaced: Mapping[str, Schema],
    required: list[str],
    leave_out: Collection[str] = (),
) -> Schema:
    """The object with the record's fields; those in ``replaced`` have a schema of their own."""
    properties: Schema = {}
    for field in msgspec.structs.fields(record):
        if field.name in leave_out:
            continue
        if field.name in replaced:
            properties[field.name] = replaced[field.name]
        else:
            properties[field.name] = _without_bits(msgspec.json.schema(field.type))
    return {"type": "object", "properties": properties, "required": required}


def _described(schema: Schema, subject: type, definitions: Schema) -> Schema:
    described = {"title": subject.__name__, "description": subject.__doc__ or "", **schema}
    return described | {"$defs": definitions} if definitions else described
