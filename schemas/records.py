"""The records on the topics: commands, events, outcomes; their JSON and nothing else.

Keys: a command's and an event's key is the aggregate id, so it does not stand in the value a second
time. Times are integers, milliseconds since 1970-01-01 UTC, and come from the command's Kafka
record.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec

from schemas import limits
from schemas.decoding import Int64, decoder
from schemas.rejections import Code

FIRST_VERSION: Final = 1
"""Of every type; a record without a version is of this one. See schemas/upcasting.py."""

MAX_COMMAND_BYTES: Final = limits.MAX_COMMAND_BYTES


ABSENT: Final = msgspec.Raw(b"")
"""Raw JSON that is not there; falsy, and left out of the record."""


class CommandRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Value on ``<prefix>.<aggregate>.commands``; ``data`` is validated by the command's own model.

    ``expected_version``: the command is refused unless the aggregate stands at this version (0:
    does not exist yet). ``data`` stays raw JSON here so that a broken field is reported by name and
    not as a broken record.
    """

    type: str
    command_id: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    schema_version: Int64 = FIRST_VERSION
    expected_version: Int64 | None = None


class EventRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Value on ``<prefix>.<aggregate>.events`` (with ``state``) and ``….history`` (without).

    ``version`` counts the aggregate's events from 1 without gap. ``state`` is the whole state
    *after* the event, so the newest record of a key is all that a view or a restarted processor
    needs. A part of an aggregate (a reservation, key ``SKU/reservation``) has a record of its own
    with ``state`` and no ``data``.

    ``schema_version`` is that of ``data``, ``state_version`` that of ``state``: an event and a state
    change independently of each other. ``subject_key``, on ``….events`` only: what the personal fields
    of the aggregate's events are sealed with (schemas/personal.py), base64url.
    """

    type: str
    id: str
    version: Int64
    occurred_at_ms: Int64
    schema_version: Int64 = FIRST_VERSION
    data: msgspec.Raw = ABSENT
    state_version: Int64 = FIRST_VERSION
    state: msgspec.Raw = ABSENT
    subject_key: str = ""


class WrittenEvent(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An ``EventRecord`` without state as it is written: ``data`` need not be JSON yet."""

    type: str
    id: str
    version: Int64
    occurred_at_ms: Int64
    schema_version: Int64 = FIRST_VERSION
    data: Any = ABSENT


class OutcomeStatus(StrEnum):
    """How a command ended."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Value on ``<prefix>.<aggregate>.outcomes`` and ``<prefix>.replies``: the answer to one
    command.

    ``version``: the aggregate's version after the command; of a rejected one, the version it was
    judged against (0: it does not exist, or was not looked at). ``digest`` tells a repetition from
    another command under the same id.
    """

    command_id: str
    type: str
    aggregate: str
    aggregate_id: str
    status: OutcomeStatus
    version: Int64
    decided_at_ms: Int64
    digest: str = ""
    code: Code | None = None
    message: str | None = None
    field: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the command was carried out."""
        return self.status is OutcomeStatus.ACCEPTED


encode: Final = msgspec.json.Encoder().encode
"""JSON of a record, an event, a state or plain data; compact, UTF-8, keys in the order of declaration."""


def with_state(event: bytes, state: msgspec.Struct, state_version: int, subject_key: str) -> bytes:
    """JSON of the same ``EventRecord`` with the state after it: what is encoded already is not encoded again.
    The bytes are those of the whole record encoded at once (tests/unit/test_schemas.py).
    """
    begin = b',"state":'
    if state_version != FIRST_VERSION:
        begin = b',"state_version":%d,"state":' % state_version
    end = b',"subject_key":"%b"}' % subject_key.encode() if subject_key else b"}"
    return b"".join((event[:-1], begin, encode(state), end))


decode_command: Final = decoder(CommandRecord)
"""Decode the envelope of a command. Raises ``DecodeError``."""

decode_event: Final = decoder(EventRecord)
"""Decode an event record. Raises ``DecodeError``."""

decode_outcome: Final = decoder(Outcome)
"""Decode an outcome. Raises ``DecodeError``."""
