"""The digest of a command, by which a repetition is told from another command under the same id. Pure.

It is taken of the meaning and not of the bytes: blanks, the order of fields at any depth, and fields that
have their default make no other command. So a new optional field makes no other command of one that is sent
again after an upgrade.
"""

from collections.abc import Callable
from hashlib import blake2b
from inspect import isclass
from typing import Any, Final, get_args, get_origin

import msgspec
from pydantic import BaseModel

from commands.aggregate import Command
from schemas.decoding import DecodeError, decode_exactly

DIGEST_BYTES: Final = 8
"""Tells a repeated command from another under the same id, within one aggregate: 64 bits are plenty."""

Meaning = Callable[..., bytes]
"""A command, and pydantic's ``exclude_defaults`` → its meaning as bytes."""

_canonical: Final = msgspec.json.Encoder(order="sorted").encode


def digest(head: bytes, meaning: bytes) -> str:
    """Return the digest of what is said of the command, and of its meaning."""
    return blake2b(head + meaning, digest_size=DIGEST_BYTES).hexdigest()


def meaning_of(model: type[Command]) -> Meaning:
    """Return what gives the meaning of a model's commands. Only free JSON has to be sorted: fields that the
    model declares come in the order of declaration.
    """
    if not model.UNCOUNTED and not _has_free_json(model):
        return model.__pydantic_serializer__.to_json
    to_python, uncounted = model.__pydantic_serializer__.to_python, set(model.UNCOUNTED)

    def meaning(command: Command, *, exclude_defaults: bool) -> bytes:
        data = to_python(command, exclude_defaults=exclude_defaults, exclude=uncounted)
        return _canonical(data)

    return meaning


def meaning_of_refused(data: bytes) -> bytes:
    """Return the meaning of data that no model has read: sorted, its numbers as they are written. What is no
    JSON means its bytes.
    """
    try:
        return _canonical(decode_exactly(data))
    except (DecodeError, RecursionError):
        return data


def _has_free_json(annotation: Any) -> bool:
    if annotation is Any or dict in (annotation, get_origin(annotation)):
        return True
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return any(_has_free_json(field.annotation) for field in annotation.model_fields.values())
    return any(map(_has_free_json, get_args(annotation)))
