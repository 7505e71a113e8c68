"""What the first release takes: its processors may still run beside those of this one."""

import json
from typing import Final

import jsonschema

from orderflow import schema_files
from schemas.records import CommandRecord

_RELEASED: Final = schema_files.ROOT / "schemas" / "released"


def check_first_release_takes(aggregate: str, command: CommandRecord) -> None:
    """Assert that a command is valid in its first released form."""
    path = _RELEASED / aggregate / f"{command.type}.v1.json"
    jsonschema.Draft202012Validator(json.loads(path.read_text())).validate(
        json.loads(bytes(command.data))
    )
