"""JSON of somebody else's shape in commands: any object that can be stored as it is. Pure."""

from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    if not is_finite(value):
        raise PydanticCustomError(
            "not_finite", "NaN, Infinity and numbers beyond 1.8e308 cannot be stored as JSON"
        )
    return value


def is_finite(value: Any) -> bool:
    """True if no number in it, however deep, is NaN or infinite."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    return True


FreeJson = Annotated[dict[str, Any], AfterValidator(_storable)]
"""A JSON object; its numbers are finite, for JSON has no others."""
