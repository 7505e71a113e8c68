"""A note on the disk: up to which offset the commands of a partition are decided.

The group's offset says the same, but the broker forgets it when the group is empty for a week. The note may
lag behind by a second's work; it never runs ahead.
"""

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from schemas.decoding import DecodeError, Int64, decoder

logger = logging.getLogger(__name__)

NAME: Final = "decided.json"


class Decided(msgspec.Struct, frozen=True):
    """``offset``: the first that is not decided, of the commands topic with this id."""

    topic_id: str
    offset: Int64


_decode: Final = decoder(Decided)


def read(directory: Path) -> Decided | None:
    """Return the note of a partition's directory; None without one, or without one that can be read."""
    try:
        return _decode((directory / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except DecodeError as error:  # a machine that lost its power may leave an empty file
        logger.warning("%s is ignored: %s", directory / NAME, error)
        return None


def write(directory: Path, decided: Decided) -> None:
    """Replace the note, as a whole or not at all."""
    new = directory / f".{NAME}"
    new.write_bytes(msgspec.json.encode(decided))
    os.replace(new, directory / NAME)  # noqa: PTH105 - atomic, and the name says so
