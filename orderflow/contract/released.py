"""The schemas that were ever released, in schemas/released, and whether today's keep their promise.

One file a type and version, ``order/OrderCreated.v1.json``, and one more for each compatible change of
it, ``order/OrderCreated.v1.2.json``. Files are only ever added: the history of a clone may be shallow,
these are not. What people read (descriptions) is left out, so rewording is no change.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from orderflow.contract.compatibility import Promise, UnknownKeyword, problems
from orderflow.contract.messages import Kind, Message, messages
from orderflow.contract.revisions import next_revision, revisions

FOLDER: Final = "schemas/released"

PROMISES: Final[Mapping[Kind, Promise]] = {
    Kind.COMMAND: Promise.BACKWARD,  # old clients send to new processors, never the other way
    Kind.EVENT: Promise.FULL,
    Kind.STATE: Promise.FULL,
    # A new rejection code is a new value: who reads outcomes is updated first.
    Kind.REPLY: Promise.BACKWARD,
    Kind.ENVELOPE: Promise.FULL,
}
"""Full where readers and writers of two releases run side by side, and records stay for ever."""

WAY_OUT: Final = (
    "Undo it; or make it a new version: a step in the type's UPCASTERS, which docs/SCHEMAS.md shows"
)

Schema = dict[str, Any]
_WORDS: Final = frozenset({"title", "description", "examples", "$schema", "$id", "$comment"})


def incompatibilities(root: Path) -> list[str]:
    """What today's types break, one line each."""
    return list(_incompatibilities(root, messages()))


def _incompatibilities(root: Path, today: tuple[Message, ...]) -> Iterator[str]:
    known = {(m.owner, m.name): m for m in today if m.is_current}
    exact = {m.path: m for m in today}
    for path, released in _released(root).items():
        owner, _, rest = path.partition("/")
        name, _, version = rest.rpartition(".v")
        newest = known.get((owner, name))
        if newest is None:
            yield f"{path}: {name} is gone, but was released: others may still write or keep it"
            continue
        if int(version) > newest.version:
            yield f"{path}: the code has gone back to version {newest.version}"
        message = exact.get(path)
        if message is None:
            continue  # an older event or state: its upcaster is held by its golden file
        for file, old in released:
            try:
                found = problems(old, bare(message.schema()), PROMISES[message.kind])
            except UnknownKeyword as error:
                found = [str(error)]
            yield from (f"{file}: {problem}" for problem in found)


def missing(root: Path) -> dict[Path, str]:
    """Files to be added, so that the next change is held to what is written from now on."""
    released = _released(root)
    found = {}
    for message in messages():
        schema = bare(message.schema())
        if all(old != schema for _, old in released.get(message.path, ())):
            path = next_revision(root / FOLDER, message.path, ".json")
            found[path] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    return found


def _released(root: Path) -> Mapping[str, list[tuple[str, Schema]]]:
    """Path of a type and version -> its files' names and schemas, oldest first."""
    found: dict[str, list[tuple[str, Schema]]] = defaultdict(list)
    for path, file in revisions(root / FOLDER, ".json"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        found[path].append((str(file.relative_to(root)), schema))
    return found


def bare(schema: Any, *, names: bool = False) -> Any:
    """A schema without words for people. ``names``: the keys are fields, not keywords."""
    if isinstance(schema, list | tuple):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: bare(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key not in _WORDS
    }
