"""Personal data in events: which fields are personal, and how they are sealed so that they can be
forgotten although the history is never deleted.

A field is declared personal where it is declared at all:

    class UserRegistered(msgspec.Struct, frozen=True):
        name: Personal
        email: Personal | None = None

On the topics its value is sealed with a key that each aggregate has of its own. The key stands in the
aggregate's newest record on the compacted topic and nowhere else; an event with ``FORGETS`` leaves it
out, and once the record before is compacted away nobody can read those fields any more. Everywhere else
(``decide``, ``evolve``, states) they are in the clear. See docs/DELETION.md and docs/adr/0008.

Sealing is AES-SIV with a 512-bit key (RFC 5297): it needs no random number, so deciding again after a
failed transaction gives the same bytes. Stream, event and field are bound in: a sealed value that was moved
elsewhere does not open. Pure but for ``new_key``. Everyone may import this.
"""

import base64
import secrets
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec.inspect import Metadata, NoneType, StrType, StructType, Type, UnionType, type_info

from schemas.decoding import decode_json, decode_object
from schemas.records import FIRST_VERSION, decode_event, encode
from schemas.upcasting import Json, upcasters_of

KEY_BYTES: Final = 64
"""Half for the tag, half for AES-256."""

Personal = Annotated[
    str,
    msgspec.Meta(
        description="Personal: sealed on the topics, and unreadable once its aggregate is forgotten.",
        extra={"personal": True},
    ),
]
"""Type of a personal field of an event; ``Personal | None`` where it may be absent. Only text is sealed."""

FORGOTTEN: Final = "(forgotten)"
"""What stands in a personal field whose key is gone; the same in every reading."""

WITHHELD: Final = "(personal)"
"""What a saga is told instead of a personal field: its own history is kept for ever, too."""

NewKey = Callable[[str], bytes]
"""Makes the key of an aggregate, from its id."""

_SEAL: Final = "aes-siv:"


class SealBroken(msgspec.ValidationError):
    """A sealed value was altered, moved from where it was written, or sealed with another key."""


def new_key(_aggregate_id: str) -> bytes:
    """A random key. Not derived from anything: what can be derived again cannot be forgotten."""
    return secrets.token_bytes(KEY_BYTES)


def sealed_from_here(data: Json) -> Json:
    """The step in ``UPCASTERS`` from which on a type's personal fields are sealed. In the clear nothing
    changes; the new version keeps older readers from taking a sealed value for a name.
    """
    return data


@cache
def personal_fields(kind: type) -> tuple[str, ...]:
    """Names of an event's personal fields. Raises TypeError where one could not be sealed."""
    info = type_info(kind)
    assert isinstance(info, StructType)
    return tuple(field.encode_name for field in info.fields if _is_personal(field.type))


def _is_personal(kind: Type) -> bool:
    if isinstance(kind, UnionType):
        personal = [_is_personal(choice) for choice in kind.types]
        if any(personal) and not all(
            mine or isinstance(choice, NoneType)
            for mine, choice in zip(personal, kind.types, strict=True)
        ):
            raise TypeError(f"only text can be personal, not {kind}")
        return any(personal)
    if isinstance(kind, Metadata) and (kind.extra or {}).get("personal"):
        if not isinstance(kind.type, StrType):
            raise TypeError(f"only text can be personal, not {kind.type}")
        return True
    return False


@cache
def forgets(kind: type) -> bool:
    """Whether an event makes all personal data of its aggregate unreadable."""
    return bool(getattr(kind, "FORGETS", False))


@cache
def _sealed_since(kind: type) -> int:
    """The version of a type from which on its personal fields are sealed."""
    chain = upcasters_of(kind)
    if sealed_from_here in chain:
        return FIRST_VERSION + 1 + chain.index(sealed_from_here)
    return FIRST_VERSION


def is_sealed(kind: type, version: int) -> bool:
    """Whether the data of an event of this version has sealed fields."""
    return bool(personal_fields(kind)) and version >= _sealed_since(kind)


def sealed(event: msgspec.Struct, key: bytes, stream: str, event_id: str) -> bytes:
    """An event's JSON with its personal fields sealed; the same input gives the same bytes.

    ``stream``: ``<aggregate>/<id>``.
    """
    names = personal_fields(type(event))
    if not names:
        return encode(event)
    cipher = AESSIV(key)
    data = msgspec.to_builtins(event)
    for name in names:
        if data[name] is not None:
            closed = cipher.encrypt(encode(data[name]), _place(stream, event_id, name))
            data[name] = _SEAL + _text(closed)
    return encode(data)


def opened(kind: type, data: bytes, key: bytes | None, stream: str, event_id: str) -> bytes:
    """The JSON of a sealed event in the clear; ``key`` None: forgotten.

    Raises SealBroken, msgspec.DecodeError.
    """
    fields: Json = decode_object(data)
    for name in personal_fields(kind):
        if fields.get(name) is not None:
            place = _place(stream, event_id, name)
            fields[name] = FORGOTTEN if key is None else _open(fields[name], key, place)
    return encode(fields)


def _open(value: Any, key: bytes, place: list[bytes]) -> Any:
    try:
        closed = key_bytes(str(value).removeprefix(_SEAL))
        return decode_json(AESSIV(key).decrypt(closed, place))
    except (InvalidTag, ValueError) as error:
        raise SealBroken(f"{b' '.join(place).decode()}: {SealBroken.__doc__}") from error


def withheld(event: msgspec.Struct) -> Json | msgspec.Raw:
    """An event's data, to be encoded, for those who may not see what is personal in it."""
    names = personal_fields(type(event))
    if not names:
        return msgspec.Raw(encode(event))
    data: Json = msgspec.to_builtins(event)
    for name in names:
        if data[name] is not None:
            data[name] = WITHHELD
    return data


def _place(stream: str, event_id: str, field: str) -> list[bytes]:
    return [stream.encode(), event_id.encode(), field.encode()]


# The key as it stands in the record on the compacted topic.


def key_text(key: bytes | None) -> str:
    """As it stands in the record; empty for none."""
    return _text(key) if key else ""


def key_bytes(text: str) -> bytes:
    """Back again. Raises ValueError for what is no base64url."""
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def key_in(value: bytes) -> bytes | None:
    """The key that a record of the compacted topic carries. Raises msgspec.DecodeError."""
    text = decode_event(value).subject_key
    return key_bytes(text) if text else None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
