"""JSON of somebody else's shape in commands: any object that can be stored as it is. Pure."""

from math import isfinite
from typing import Annotated, Any, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

MAX_BITS: Final = 13_950
"""Of a whole number: 4,200 digits. Readers of JSON stop at 4,300 characters, one of which may be a sign."""


UNSTORABLE: Final = (
    "NaN, Infinity, fractions beyond 1.8e308 and whole numbers of more than 4,200 digits cannot be stored as"
    " JSON"
)


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    if not is_storable(value):
        raise PydanticCustomError("not_storable", UNSTORABLE)
    return value


def is_storable(value: Any) -> bool:
    """Return whether every number in it, however deep, is finite and can be read again."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    if isinstance(value, dict):
        return all(map(is_storable, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_storable, value))
    return True


FreeJson = Annotated[dict[str, Any], AfterValidator(_storable)]
"""A JSON object; its numbers are finite and not too long to be read again."""
