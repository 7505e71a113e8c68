"""Writes what is made from the code: JSON Schemas, the AsyncAPI document, the tables in the docs, and new
golden files and released schemas. Refuses a change that breaks what was released.

    python -m orderflow.schema_files           writes the files that differ or are missing
    python -m orderflow.schema_files --check   writes nothing; exit code 1 names what differs

Golden files and released schemas are only ever added. An incompatible change ends both ways with exit code
1, and the first writes nothing then. Tests hold the files equal to the code, so a change of the wire format
shows in a diff.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from orderflow.contract import asyncapi, golden, released
from orderflow.contract.json_schemas import Schema, schemas
from orderflow.reference import marked_tables, with_tables

ROOT: Final = Path(__file__).resolve().parent.parent
SCHEMAS: Final = "schemas/json"
DOCUMENTS: Final = ("README.md", "docs/WIRE_FORMAT.md", "docs/WEBHOOKS.md")
"""Files with tables between markers."""

USAGE: Final = "usage: python -m orderflow.schema_files [--check]\n"


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
    new_golden = golden.missing(root)
    examples = {path: file.read_text("utf-8") for path, file in golden.goldens(root)}
    examples |= {golden.message_of(root, path): text for path, text in new_golden.items()}
    records = {path: json.loads(text) for path, text in examples.items()}
    wanted[root / asyncapi.FILE] = asyncapi.text_of(records)
    wanted |= new_golden
    wanted |= released.missing(root)
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


def main(arguments: list[str], root: Path = ROOT) -> int:
    """The exit code: 1 for an incompatible change, or a difference with ``--check``; 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(USAGE)
        return 2
    broken = released.incompatibilities(root)
    if broken:
        for problem in broken:
            sys.stderr.write(f"{problem}\n")
        sys.stderr.write(f"{released.WAY_OUT}.\n")
        return 1
    found = differences(root)
    if not arguments:
        write(found)
    for path in found:
        sys.stdout.write(f"{path.relative_to(root)}\n")
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
