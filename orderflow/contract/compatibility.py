"""Whether a changed JSON Schema still keeps what an older one promised, and if not, what breaks.

    backward   who reads with the new schema can read what was written with the old one
    forward    who reads with the old schema can read what is written with the new one
    full       both

Structural: an alternative of the writer has to fit one alternative of the reader. It knows the keywords
that msgspec and pydantic give for the messages here, and refuses those that it does not know, for a
check that passes over what it does not understand is none. The libraries for this answer yes or no (a
change has to be told what is wrong with it) and know draft 4. Pure.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

Schema = Mapping[str, Any]

_SAYS_NOTHING: Final = frozenset({"title", "description", "examples", "$schema", "$id", "$comment"})
_KNOWN: Final = _SAYS_NOTHING | {
    *("$ref", "$defs", "anyOf", "type", "enum", "const", "default"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("pattern", "minLength", "maxLength", "not", "contentEncoding"),
    *("items", "prefixItems", "minItems", "maxItems"),
    *("properties", "required", "additionalProperties"),
}
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_LIMITS: Final = (
    *_LOWER,
    *_UPPER,
    "pattern",
    "contentEncoding",
    "not",
    "items",
    "prefixItems",
    "properties",
    "required",
)
_TYPE_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}


class UnknownKeyword(ValueError):
    """A schema has a keyword that this check cannot judge; teach it the keyword or do without it."""


class Promise(Enum):
    """What a change has to keep."""

    BACKWARD = "backward"
    FULL = "full"


def problems(old: Schema, new: Schema, promise: Promise) -> list[str]:
    """What breaks, each as a place and a sentence; empty when the promise is kept. Raises UnknownKeyword."""
    found = list(_Check(old, new, keep=True).fits(old, new, ""))
    if promise is Promise.FULL:
        there = _Check(new, old, keep=False).fits(new, old, "")
        found += [f"{problem}, for who reads with the older schema" for problem in there]
    return list(dict.fromkeys(found))


class _Check:
    """Whether what ``writer`` allows is what ``reader`` takes. ``keep``: the reader must know every field,
    since it would lose what it does not know.
    """

    def __init__(self, writer: Schema, reader: Schema, *, keep: bool) -> None:
        self._writer, self._reader, self._keep = writer, reader, keep

    def fits(self, writer: Schema, reader: Schema, at: str) -> Iterator[str]:
        """What does not."""
        choices = _choices(reader, self._reader, at)
        for choice in _choices(writer, self._writer, at):
            tried = [list(self._one(choice, other, at)) for other in choices]
            if all(tried):  # no choice of the reader is without a problem: tell the nearest one's
                yield from min(tried, key=len)

    def _one(self, writer: Schema, reader: Schema, at: str) -> Iterator[str]:
        if not _says(reader):
            return
        values = _values(writer)
        if values is not None:
            yield from _values_fit(values, reader, at)
            return
        if _values(reader) is not None:
            yield f"{_place(at)} takes only {_values(reader)}"
            return
        kinds = writer.get("type"), reader.get("type")
        if kinds[0] != kinds[1] and kinds != ("integer", "number"):
            # Twice, so that among several choices one of the same type is nearer.
            yield f"{_place(at)} is {kinds[0] or 'anything'} in the one and {kinds[1]} in the other"
            yield f"{_place(at)} has another type"
            return
        yield from _limits_fit(writer, reader, at)
        if reader.get("type") == "array":
            yield from self._items_fit(writer, reader, at)
        if reader.get("type") == "object":
            yield from self._fields_fit(writer, reader, at)

    def _items_fit(self, writer: Schema, reader: Schema, at: str) -> Iterator[str]:
        if writer.get("prefixItems") != reader.get("prefixItems"):
            yield f"{_place(at)} has other places"
        items = writer.get("items", {}), reader.get("items", {})
        if all(isinstance(item, Mapping) for item in items):
            yield from self.fits(*items, f"{at}[]")
        elif items[0] != items[1]:
            yield f"{_place(at)} has other items"

    def _fields_fit(self, writer: Schema, reader: Schema, at: str) -> Iterator[str]:
        written, known = writer.get("properties", {}), reader.get("properties", {})
        always, wanted = set(writer.get("required", ())), set(reader.get("required", ()))
        other = reader.get("additionalProperties")
        closed = other is False
        for name in written:
            there = f"{at}.{name}".lstrip(".")
            if name in known:
                yield from self.fits(written[name], known[name], there)
                if name not in always and name not in wanted:
                    yield from _same_default(written[name], known[name], there)
            elif isinstance(other, Mapping):
                yield from self.fits(written[name], other, there)
            elif closed or (self._keep and "properties" in reader):
                yield f"`{there}` is not known{' any more' if self._keep else ''}"
        for name in sorted(wanted - always):
            yield f"`{f'{at}.{name}'.lstrip('.')}` is required, but need not be there"
        # A writer writes what it knows, so a schema that lists fields has no others.
        free = writer.get("additionalProperties", "properties" not in writer)
        if free is not False and closed:
            yield f"{_place(at)} takes no other fields"
        elif free is not False and isinstance(other, Mapping):
            yield from self.fits({} if free is True else free, other, f"{at}.*".lstrip("."))


def _choices(schema: Schema, root: Schema, at: str) -> list[Schema]:
    """The alternatives, each without references."""
    unknown = set(schema) - _KNOWN
    if unknown:
        raise UnknownKeyword(f"{_place(at)}: {', '.join(sorted(unknown))} cannot be judged")
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        return _choices(root["$defs"][name], root, at)
    if "anyOf" in schema:
        return [found for choice in schema["anyOf"] for found in _choices(choice, root, at)]
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind} for kind in kinds]
    return [schema]


def _says(schema: Schema) -> set[str]:
    return set(schema) - _SAYS_NOTHING - {"default", "$defs"}


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _values_fit(values: list[Any], reader: Schema, at: str) -> Iterator[str]:
    known = _values(reader)
    for value in values:
        if known is not None:
            if value not in known:
                yield f"{_place(at)} does not take {value!r}"
        elif _TYPE_NAMES.get(type(value)) != reader.get("type") or set(reader) & set(_LIMITS):
            yield f"{_place(at)} need not take {value!r}"


def _limits_fit(writer: Schema, reader: Schema, at: str) -> Iterator[str]:
    for names, sign in ((_LOWER, 1), (_UPPER, -1)):
        for name in names:
            limit = reader.get(name)
            if limit is None:
                continue
            # A limit of the other kind, exclusive or not, is told as narrower: it seldom matters.
            mine = writer.get(name)
            if mine is None or sign * mine < sign * limit:
                yield f"{_place(at)} has a narrower {name}: {limit}, not {mine}"
    for name in ("pattern", "not"):
        if name in reader and reader[name] != writer.get(name):
            yield f"{_place(at)} has another {name}: {reader[name]}, not {writer.get(name)}"


def _same_default(writer: Schema, reader: Schema, at: str) -> Iterator[str]:
    if writer.get("default") != reader.get("default"):
        yield (
            f"`{at}` left out means {reader.get('default')!r}, and meant {writer.get('default')!r}"
        )


def _place(at: str) -> str:
    return f"`{at}`" if at else "the whole"
