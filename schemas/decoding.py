"""Decode JSON and numbers that anyone may have written.

Decoding is total: it returns a value or raises ``DecodeError``, whatever the bytes are. msgspec alone is not:
it raises ``RecursionError`` for JSON nested over about 1,000 levels and ``UnicodeDecodeError`` for broken
UTF-8. Pure; everyone may import this. Invariant: nothing else in the product calls ``msgspec.json`` to
decode (tests/unit/test_decoding.py).
"""

from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

DecodeError: Final = msgspec.DecodeError
"""The bytes are not what they should be; ``msgspec.ValidationError`` is one of these."""

MAX_DIGITS: Final = 18
"""Digits of a number in a header: every such number is below 10**18 and fits 64 bits."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
"""A whole number that Kafka, Redis, SQL and C can hold. JSON's have no bounds, nor have Python's, so each
whole number of a record or state of the product is of this type (tests/unit/test_decoding.py).
"""

T = TypeVar("T")


def decoder(kind: type[T]) -> Callable[[bytes | str | msgspec.Raw], T]:
    """Return the function that decodes JSON as ``kind``. It raises ``DecodeError`` and nothing else."""
    return _total(msgspec.json.Decoder(kind), _holds_raw(cast("Hashable", kind)))


@cache
def _holds_raw(kind: Any) -> bool:
    """Return whether a part of the type is kept as it came. Remembered: to look a type through takes a
    hundred times as long as to make its decoder, which some do for every event.
    """
    parts = parts_of(inspect.type_info(kind), set())
    return any(isinstance(part, inspect.RawType) for part in parts)


def parts_of(info: inspect.Type, seen: set[type]) -> Iterator[inspect.Type]:
    """Yield a type and all types within it, each class once. ``seen``: those that were."""
    if isinstance(info, inspect.StructType):
        if info.cls in seen:
            return
        seen.add(info.cls)
    yield info
    for name in info.__struct_fields__:
        inner = getattr(info, name)
        for each in inner if isinstance(inner, tuple) else (inner,):
            part = each.type if isinstance(each, inspect.Field) else each
            if isinstance(part, inspect.Type):
                yield from parts_of(part, seen)


def _total(
    raw_decoder: msgspec.json.Decoder[T], holds_raw: bool = False
) -> Callable[[bytes | str | msgspec.Raw], T]:
    """``holds_raw``: a part is kept as it came; msgspec does not look whether that is UTF-8."""
    raw_decode = raw_decoder.decode

    def decode(value: bytes | str | msgspec.Raw) -> T:
        try:
            if holds_raw and isinstance(value, bytes) and not value.isascii():
                value.decode()
            decoded: T = raw_decode(value)
            return decoded
        except msgspec.DecodeError:
            raise
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(f"not UTF-8: {error}") from error
        except RecursionError as error:
            raise msgspec.DecodeError("nested too deeply") from error

    return decode


decode_json: Final[Callable[[bytes | str | msgspec.Raw], Any]] = decoder(cast("type[Any]", Any))
"""Decode any JSON. Raises ``DecodeError``."""

decode_exactly: Final[Callable[[bytes | str | msgspec.Raw], Any]] = _total(
    msgspec.json.Decoder(cast("type[Any]", Any), float_hook=lambda text: msgspec.Raw(text.encode()))
)
"""Decode any JSON; numbers with a fraction or exponent stay as they are written. Raises ``DecodeError``."""

decode_object: Final[Callable[[bytes | str | msgspec.Raw], dict[str, Any]]] = decoder(
    dict[str, Any]
)
"""Decode a JSON object. Raises ``DecodeError``."""


def whole_number(text: bytes | str | None) -> int | None:
    """Return the number that ASCII digits stand for, or None for anything else and for over 18 digits."""
    if not text or len(text) > MAX_DIGITS or not text.isascii() or not text.isdigit():
        return None
    return int(text)
