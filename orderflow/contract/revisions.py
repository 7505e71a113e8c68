"""Files that are only ever added: ``<path>.v1.json``, and for each later form of the same version
``<path>.v1.2.json``, ``<path>.v1.3.json`` and so on.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"(?P<message>.+\.v[0-9]+)(?:\.(?P<revision>[0-9]+))?")


def revisions(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    """Path of each message below the folder, and its files, oldest first."""
    found = [
        (*message_in(file.relative_to(folder).as_posix(), ending), file)
        for file in folder.rglob(f"*{ending}")
    ]
    for message, _, file in sorted(found):
        yield message, file


def message_in(name: str, ending: str) -> tuple[str, int]:
    """Path of the message that a file's name names, and its revision. Raises ValueError."""
    match = _NAME.fullmatch(name.removesuffix(ending))
    if match is None:
        raise ValueError(f"{name}: not the name of a message and its version")
    return match["message"], int(match["revision"] or 1)


def next_revision(folder: Path, message: str, ending: str) -> Path:
    """The first name that is free."""
    file, revision = folder / f"{message}{ending}", 1
    while file.exists():
        revision += 1
        file = folder / f"{message}.{revision}{ending}"
    return file
