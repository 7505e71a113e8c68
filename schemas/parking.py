"""Records that wait because they, or one before them of the same key, could not be handled.

What waits stands on ``<prefix>.<aggregate>.parked``, what was done about it on ``<prefix>.audit``. The
invariant: as long as a key has a parked record, what comes after it under that key is parked behind it.
"""

from hashlib import blake2b
from typing import Final

import msgspec

from schemas.decoding import Int64, decoder
from schemas.ids import PART_SEPARATOR
from schemas.rejections import Code

DIGEST_BYTES: Final = 16
_OFFSET_DIGITS: Final = 20
"""Bytes of a key that an error message repeats."""

_NOTICE: Final = b"parked" + PART_SEPARATOR.encode()


class Parked(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Value on ``<prefix>.<aggregate>.parked``: a record of the commands topic as it came; bytes are base64.

    ``occurred_at_ms``: its time, epoch milliseconds UTC. ``attempts``: how often it failed; 0: it waits
    behind one that did, and was not judged yet. ``code``: why it failed.
    """

    offset: Int64
    occurred_at_ms: Int64
    value: bytes
    headers: list[tuple[str, bytes | None]] = []
    attempts: Int64 = 0
    code: Code | None = None


class ParkedNotice(msgspec.Struct, frozen=True):
    """Value on ``<prefix>.replies``, to a sender that waits: no outcome yet, and why. ``offset``: of the
    record of this key that failed, on the commands topic.
    """

    aggregate: str
    aggregate_id: str
    command_id: str
    offset: Int64
    message: str


class Action(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Value on ``<prefix>.audit``: what somebody did about a record that could not be handled.

    ``action``: retry, edit or discard. ``settled``: the record is no open letter any more; otherwise it
    failed again. ``stage``: who could not handle it;
    ``topic``, ``partition`` and ``offset`` are the record's; ``before`` and ``after`` digests
    of its bytes (blake2b, 16 bytes, hex), ``after`` only where they were replaced. ``at_ms``: when it was
    ordered, epoch milliseconds UTC.
    """

    action: str
    by: str
    at_ms: Int64
    settled: bool
    result: str
    stage: str
    topic: str
    partition: Int64
    offset: Int64
    before: str
    after: str = ""
    note: str = ""


decode_parked: Final = decoder(Parked)
decode_action: Final = decoder(Action)
decode_notice: Final = decoder(ParkedNotice)
"""Each raises ``DecodeError``."""


def parked_key(aggregate_id: bytes, offset: int) -> bytes:
    """Record key of a parked record. In byte order, those of one aggregate are in their order of arrival."""
    return b"%s/%0*d" % (aggregate_id, _OFFSET_DIGITS, offset)


def read_parked_key(key: bytes) -> tuple[bytes, int] | None:
    """Return the aggregate id and the offset; None for a key that ``parked_key`` does not make."""
    aggregate_id, separator, offset = key.rpartition(b"/")
    if not separator or len(offset) != _OFFSET_DIGITS or not offset.isdigit():
        return None
    return aggregate_id, int(offset)


def notice_key(reply: bytes) -> bytes:
    """Record key of a notice, from that of the reply which it puts off."""
    return _NOTICE + reply


def put_off_by(key: bytes) -> bytes | None:
    """The reply that a notice puts off; None when the key is no notice's."""
    return key.removeprefix(_NOTICE) if key.startswith(_NOTICE) else None


def bytes_digest(value: bytes | None) -> str:
    """Of a record's bytes, as the audit names them."""
    return blake2b(value or b"", digest_size=DIGEST_BYTES).hexdigest()
