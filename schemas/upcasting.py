"""Reading what an older release wrote: a message's JSON is brought up to its type's current version
by a chain of pure functions, one for each step.

A type that has changed declares the chain beside its fields, and with it its current version:

    class OrderCancelled(msgspec.Struct, frozen=True):
        UPCASTERS: ClassVar = (_reason_has_a_code,)     # 1 -> 2; so the current version is 2

Thus the version cannot contradict the chain, and the chain has no gaps. Type and place in the tuple are
the key; events, states (of roots and parts) and commands are different types. Invariant: who reads an
event or a state reads it through a ``Reader``; a version newer than known is refused as
``UnsupportedVersion`` and never guessed at. Everyone may import this.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, Generic, TypeVar

import msgspec

from schemas.decoding import Int64, decode_object, decoder
from schemas.records import FIRST_VERSION, decode_event, encode

Json = dict[str, Any]
Upcaster = Callable[[Json], Json]
"""The data of version n as that of version n + 1. Pure; it may change and return what it is given."""

T = TypeVar("T")


class UnsupportedVersion(msgspec.ValidationError):
    """A message is of a version that this release does not know; update the reader first."""


def upcasters_of(kind: type) -> tuple[Upcaster, ...]:
    """The chain of a type, from version 1 on; empty while it has never changed."""
    found: tuple[Upcaster, ...] = getattr(kind, "UPCASTERS", ())
    return found


def _version_of(kind: type) -> int:
    return FIRST_VERSION + len(upcasters_of(kind))


version_of: Final[Callable[[type], int]] = cache(_version_of)
"""The current version of a type: the one that is written. Remembered, since every record asks for it."""


def upcast(kind: type, data: Json, version: int) -> Json:
    """Data of ``version`` as the current one. Raises UnsupportedVersion, and msgspec.ValidationError
    for data that a step cannot use, because it is not what that version was.
    """
    if not FIRST_VERSION <= version <= version_of(kind):
        raise UnsupportedVersion(
            f"version {version} of {kind.__name__} is not known here; "
            f"1 to {version_of(kind)} are: update this reader"
        )
    for number, step in enumerate(upcasters_of(kind)[version - FIRST_VERSION :], version):
        try:
            data = step(data)
        except Exception as error:  # whatever stands there instead of the fields it expects
            raise msgspec.ValidationError(
                f"not {kind.__name__} of version {number}: {error!r}"
            ) from error
    return data


class Reader(Generic[T]):
    """Reads one type, of any version up to the current one. Of the current one it costs a comparison of
    two integers.
    """

    __slots__ = ("_current", "_decode", "type")

    def __init__(self, kind: type[T]) -> None:
        self.type: Final = kind
        self._current = version_of(kind)
        self._decode: Callable[[bytes | msgspec.Raw], T] = decoder(kind)

    def read(self, data: bytes | msgspec.Raw, version: int) -> T:
        """Raises UnsupportedVersion, msgspec.MsgspecError, UnicodeDecodeError."""
        if version == self._current:
            return self._decode(data)
        return self._decode(self._upcast(data, version))

    def current(self, data: msgspec.Raw, version: int) -> bytes:
        """The JSON itself, as if it had been written today. Raises as ``read``."""
        return bytes(data) if version == self._current else self._upcast(data, version)

    def _upcast(self, data: bytes | msgspec.Raw, version: int) -> bytes:
        return encode(upcast(self.type, decode_object(data), version))


class StateReader(Generic[T]):
    """Reads the aggregate's version and the state out of an event record, and skips the rest."""

    def __init__(self, kind: type[T]) -> None:
        self._current = version_of(kind)
        self._state = Reader(kind)
        stored = msgspec.defstruct(
            "Stored", [("version", Int64), ("state", kind), ("state_version", Int64, FIRST_VERSION)]
        )
        self._decode = decoder(stored)

    def read(self, value: bytes) -> tuple[int, T]:
        """Raises as ``Reader.read``."""
        try:
            stored: Any = self._decode(value)
            if stored.state_version == self._current:
                return stored.version, stored.state
        except msgspec.ValidationError:
            pass  # an older state need not look like today's; if it is not older, this comes again
        record = decode_event(value)
        return record.version, self._state.read(record.state, record.state_version)
