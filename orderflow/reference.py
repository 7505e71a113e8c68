"""The tables of the documentation that are generated from the code, as Markdown.

In a document a table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; `python
-m orderflow.schema_files` rewrites what is between them. Pure.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any, Final

from commands.aggregate import Aggregate, Command
from commands.parking import ORDERS
from commands.text import NOT_BLANK
from processors import edge
from runtime.settings import Settings
from sagas import AGGREGATES
from schemas import headers
from schemas.ids import ID_PATTERN
from schemas.rejections import Code
from schemas.topics import Topics
from schemas.webhook import ALL_OF_IT, EVENTS_OF

_TABLE: Final = re.compile(
    r"(?P<begin><!-- table: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of table -->)", re.DOTALL
)
_CODE_COMMENT: Final = re.compile(r'^ {4}([A-Z_]+) = "[a-z_]+"  # (.+)$', re.MULTILINE)
_HEADER: Final = re.compile(
    r'^([A-Z_]+): Final = "([^"]+)"(?:\n"""(.*?)""")?', re.MULTILINE | re.DOTALL
)
_CODE_USE: Final = re.compile(r"\bCode\.([A-Z_]+)\b")
_AGGREGATE: Final = rf"\.({'|'.join(a.name for a in AGGREGATES)})\."
_PREFIX: Final = "<prefix>"
_NOTHING: Final = "none"

LONGEST_SHOWN: Final = 60
"""Of a pattern, in characters: a longer one says nothing to a reader."""

Schema = Mapping[str, Any]


class UnknownTable(ValueError):
    """A document has a marker for a table that does not exist."""


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The document with each marked table as it should be. Raises UnknownTable."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise UnknownTable(f"there is no table {name!r}; there are: {', '.join(tables)}")
        return f"{match['begin']}{tables[name]}{match['end']}"

    return _TABLE.sub(replace, text)


def marked_tables() -> dict[str, str]:
    """Name in the marker -> Markdown."""
    return {
        "settings": settings_table(),
        "topics": topics_table(),
        "headers": headers_table(),
        "commands": "\n".join(_aggregate_section(aggregate) for aggregate in AGGREGATES),
        "orders": _commands_table(ORDERS),
        "rejections": rejections_table(),
        "event-types": event_types_table(),
    }


def settings_table() -> str:
    """Every variable of the environment, its default and what it is for."""
    rows = (
        (f"`{field.alias}`", _default(field.default), field.description or "")
        for field in Settings.model_fields.values()
    )
    return _table(("variable", "default", "what it is"), rows)


def topics_table() -> str:
    """Every topic of the table in schemas/topics.py; those that each aggregate has stand there once."""
    topics = Topics(_PREFIX, partitions=int(Settings.model_fields["partitions"].default))
    rows = {
        f"`{re.sub(_AGGREGATE, '.<aggregate>.', spec.name)}`": (
            str(spec.partitions),
            _config(spec.config),
        )
        for spec in topics.specs()
    }
    return _table(
        ("topic", "partitions (default)", "options"), ((name, *row) for name, row in rows.items())
    )


def headers_table() -> str:
    """Every header and the comment that stands under its name in schemas/headers.py."""
    rows = ((f"`{name}`", meaning) for name, meaning in header_meanings().items())
    return _table(("header", "what it holds"), rows)


def header_meanings() -> dict[str, str]:
    """Header -> the comment that stands under its name in schemas/headers.py."""
    found = _HEADER.findall(inspect.getsource(headers))
    return {value: sentence(text) or _words(name) for name, value, text in found}


def rejections_table() -> str:
    """Every code, who gives it, and what it means where the name does not say it all."""
    meaning = dict(_CODE_COMMENT.findall(inspect.getsource(sys.modules[Code.__module__])))
    givers = {aggregate.name: _codes_in(aggregate) for aggregate in AGGREGATES}
    rows = (
        (
            f"`{code.value}`",
            ", ".join(name for name, codes in givers.items() if code.name in codes)
            or "any command",
            meaning.get(code.name, ""),
        )
        for code in Code
    )
    return _table(("code", "given by", "meaning, where the name does not say it all"), rows)


def event_types_table() -> str:
    """What a webhook can subscribe to."""
    rows = (
        (f"`{name}.{ALL_OF_IT}`", ", ".join(f"`{name}.{event.__name__}`" for event in events))
        for name, events in EVENTS_OF.items()
    )
    return _table(("all of an aggregate", "one type"), rows)


def _codes_in(aggregate: Aggregate) -> set[str]:
    """The codes that an aggregate's file names; only these can it give. Not those of the edge, which any
    command can get.
    """
    decide = aggregate.decide
    function = decide.func if isinstance(decide, partial) else decide
    return _codes_of(sys.modules[function.__module__]) - _codes_of(edge)


def _codes_of(module: ModuleType) -> set[str]:
    return set(_CODE_USE.findall(inspect.getsource(module)))


def _aggregate_section(aggregate: Aggregate) -> str:
    events = ", ".join(f"`{event.__name__}`" for event in aggregate.events)
    return (
        f"**{aggregate.name}**, on `{_PREFIX}.{aggregate.name}.commands`. Events: {events}.\n\n"
        + _commands_table(aggregate.commands)
    )


def _commands_table(models: Iterable[type[Command]]) -> str:
    rows = ((f"`{m.__name__}`", _fields(m), sentence(m.__doc__)) for m in models)
    return _table(("command", "fields of `data`", "what it does"), rows)


def _fields(model: type[Command]) -> str:
    schema = model.model_json_schema()
    fields = list(_described_fields(schema, schema.get("$defs", {}), ""))
    return "<br>".join(fields) if fields else "none"


def _described_fields(
    schema: Schema, definitions: Mapping[str, Schema], path: str
) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kind, inner = _kind(field, definitions)
        default = field.get("default")
        may_lack = ", optional" if default is None else f", `{json.dumps(default)}` if left out"
        optional = "" if name in required else may_lack
        yield f"`{path}{name}`: {kind}{optional}. {field.get('description', '')}".strip()
        if inner is not None:
            yield from _described_fields(inner, definitions, f"{path}{name}[].")


def _kind(field: Schema, definitions: Mapping[str, Schema]) -> tuple[str, Schema | None]:
    """A field's type in words, and the objects that a list holds."""
    for choice in field.get("anyOf", ()):
        if choice.get("type") != "null":
            return _kind(choice, definitions)
    match field.get("type"):
        case "integer":
            low = field.get("minimum", field.get("exclusiveMinimum", -1) + 1)
            return f"integer, {low} to {field.get('maximum')}", None
        case "array":
            items = field["items"]
            if "enum" in items:
                most = f"{field.get('minItems', 0)} to {field.get('maxItems')}"
                return f"list, {most}, of the event types in [WEBHOOKS.md](WEBHOOKS.md)", None
            if "$ref" not in items:
                return "list of objects", None
            inner = definitions[str(items["$ref"]).rpartition("/")[2]]
            return f"list, {field.get('minItems', 0)} to {field.get('maxItems')}", inner
        case "string":
            return _string(field), None
        case "boolean":
            return "boolean", None
        case "object":
            return "object", None
        case other:
            raise NotImplementedError(f"no words for a field of type {other}")


def _string(field: Schema) -> str:
    pattern = field.get("pattern")
    if pattern is None:
        return f"string, {field['minLength']} to {field['maxLength']} characters"
    if pattern == ID_PATTERN:
        return "id"
    if pattern == NOT_BLANK:
        return f"string, {field['minLength']} to {field['maxLength']} characters, not only blanks"
    if len(pattern) > LONGEST_SHOWN:
        return "string, as its JSON Schema has it"
    return f"string matching `{pattern}`"


def _default(value: object) -> str:
    return _NOTHING if value is None else f"`{value}`"


def _config(options: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in options.items())


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def sentence(text: str | None) -> str:
    """A docstring on one line, with the backquotes of Markdown."""
    return " ".join((text or "").replace("``", "`").split())


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" for _ in names), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
