"""Writes what is generated from the code: the JSON Schemas in schemas/json and the tables in the
docs.

    python -m orderflow.schema_files           rewrites the files that differ
    python -m orderflow.schema_files --check   writes nothing; exit code 1 names what differs

Tests hold the files equal to the code, so a change of the wire format shows in a diff. Here stands
what a message looks like; `orderflow.reference` makes the tables for people.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Command
from orderflow.reference import marked_tables, sentence, with_tables
from sagas import AGGREGATES
from schemas.ids import ID_PATTERN, MAX_ID_LENGTH
from schemas.records import SCHEMA_VERSION, CommandRecord, EventRecord, Outcome

ROOT: Final = Path(__file__).resolve().parent.parent
SCHEMAS: Final = "schemas/json"
DOCUMENTS: Final = ("README.md", "docs/WIRE_FORMAT.md")
"""Files with tables between markers."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Path below schemas/json -> JSON Schema of one message's value, for every message there is."""
    return dict(_schemas())


def _schemas() -> Iterator[tuple[str, Schema]]:
    for aggregate in AGGREGATES:
        name = aggregate.name
        for model in aggregate.commands:
            yield _named(f"{name}/commands/{model.__name__}", command_schema(model))
        for event in aggregate.events:
            full = event_schema((event.__name__,), event, aggregate.root_type)
            yield _named(f"{name}/events/{event.__name__}", full)
            bare = event_schema((event.__name__,), event, None)
            yield _named(f"{name}/history/{event.__name__}", bare)
        if aggregate.part_type is not None:
            yield _named(f"{name}/events/{aggregate.part_type.__name__}", part_schema(aggregate))
    yield _named("outcome", outcome_schema())


def _named(path: str, schema: Schema) -> tuple[str, Schema]:
    identity = f"urn:orderflow:{path.replace('/', ':')}:{SCHEMA_VERSION}"
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


def command_schema(model: type[Command]) -> Schema:
    """Envelope and data of a command."""
    data = model.model_json_schema()
    definitions = data.pop("$defs", {})
    # The edge takes an absent `data` for an empty object, which satisfies a model without fields.
    required = ("type", "command_id", *(("data",) if data.get("required") else ()))
    id_ = {"type": "string", "pattern": ID_PATTERN, "maxLength": MAX_ID_LENGTH}
    replaced: Schema = {"type": {"const": model.__name__}, "command_id": id_, "data": data}
    schema = _envelope(CommandRecord, replaced, required)
    return _described(schema, model, definitions)


def event_schema(
    types: tuple[str, ...],
    event: type[msgspec.Struct] | None,
    state: type[msgspec.Struct] | None,
) -> Schema:
    """An event record: with ``state`` as on the events topic, without it as in the history."""
    present = {"data": event, "state": state}
    parts = {name: kind for name, kind in present.items() if kind is not None}
    references, definitions = msgspec.json.schema_components(
        parts.values(), ref_template="#/$defs/{name}"
    )
    replaced: Schema = dict(zip(parts, references, strict=True))
    replaced["type"] = {"const": types[0]} if len(types) == 1 else {"enum": list(types)}
    required = ("type", "id", "version", "occurred_at_ms", *parts)
    schema = _envelope(EventRecord, replaced, required, leave_out=set(present) - set(parts))
    return _described(schema, event or state or EventRecord, definitions)


def part_schema(aggregate: Aggregate) -> Schema:
    """The record of a part's own: any event may have made it; the data stands on the root's record."""
    return event_schema(
        tuple(event.__name__ for event in aggregate.events), None, aggregate.part_type
    )


def outcome_schema() -> Schema:
    """An outcome, on an aggregate's outcomes topic and as a reply."""
    (reference,), definitions = msgspec.json.schema_components(
        [Outcome], ref_template="#/$defs/{name}"
    )
    del reference  # the outcome itself becomes the root of its file
    outcome: Schema = definitions.pop("Outcome")
    return outcome | {"$defs": definitions}


def _envelope(
    record: type[msgspec.Struct],
    replaced: Mapping[str, Schema],
    required: tuple[str, ...],
    leave_out: Collection[str] = (),
) -> Schema:
    """The object with the record's fields; those in ``replaced`` have a schema of their own."""
    properties: Schema = {}
    for field in msgspec.structs.fields(record):
        if field.name in leave_out:
            continue
        if field.name in replaced:
            properties[field.name] = replaced[field.name]
        elif field.name == "schema_version":
            properties[field.name] = {"const": SCHEMA_VERSION, "default": SCHEMA_VERSION}
        else:
            properties[field.name] = msgspec.json.schema(field.type)
    return {"type": "object", "properties": properties, "required": list(required)}


def _described(schema: Schema, subject: type, definitions: Schema) -> Schema:
    described = {"title": subject.__name__, "description": subject.__doc__ or "", **schema}
    return described | {"$defs": definitions} if definitions else described


def text_of(schema: Schema) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def differences(root: Path = ROOT) -> dict[Path, str | None]:
    """Files that differ -> what they should hold; None for a schema of a message that is gone."""
    wanted: dict[Path, str | None] = {
        root / SCHEMAS / path: text_of(schema) for path, schema in schemas().items()
    }
    for path in (root / SCHEMAS).rglob("*.json"):
        wanted.setdefault(path, None)
    tables = marked_tables()
    for document in DOCUMENTS:
        path = root / document
        wanted[path] = with_tables(path.read_text(encoding="utf-8"), tables)
    return {path: text for path, text in wanted.items() if _read(path) != text}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def write(found: Mapping[Path, str | None]) -> None:
    """Makes the files as ``differences`` wants them."""
    for path, text in found.items():
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """The exit code: 1 when ``--check`` found a difference, 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m orderflow.schema_files [--check]\n")
        return 2
    found = differences()
    if not arguments:
        write(found)
    for path in found:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
