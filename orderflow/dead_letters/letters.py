"""What the topics of dead letters and of the audit say together. Pure.

A record that fails again is a new letter of the same place and stage: they are one here, under the id of the
first. The invariant: a letter is open until somebody's action says that it is settled.
"""

from collections.abc import Iterable

import msgspec

from runtime.records import Headers
from schemas import headers
from schemas.decoding import whole_number
from schemas.ids import is_id
from schemas.parking import Action
from schemas.topics import AGGREGATES, Topics


class Found(msgspec.Struct, frozen=True):
    """One record of the topic of dead letters. ``at_ms``: when it was written, epoch milliseconds UTC."""

    partition: int
    offset: int
    key: bytes | None
    marks: Headers
    size: int
    at_ms: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be handled.

    ``id``: ``partition-offset`` on the topic of dead letters; ``topic``, ``partition``, ``offset``: where the
    record itself stands, as the letter's headers say: anybody may have written them. ``aggregate``: whose
    command it was; None where it was no command of this pipeline. ``newest``: offset of the dead letter with
    the last attempt's cause. ``holds_key``: others wait for it, ``waiting`` so many. Times are epoch
    milliseconds UTC.
    """

    id: str
    open: bool
    stage: str
    code: str
    message: str
    exception: str
    attempts: int
    topic: str
    partition: int
    offset: int
    key: str | None
    size: int
    holds_key: bool
    correlation_id: str | None
    first_at_ms: int
    last_at_ms: int
    newest: int
    actions: tuple[Action, ...] = ()
    waiting: int = 0
    aggregate: str | None = None

    @property
    def holder(self) -> str | None:
        """The aggregate whose processor can be ordered to settle it; None where none can hold this key."""
        return self.aggregate if self.holds_key and is_id(self.key or "") else None


def letters_of(found: Iterable[Found], actions: Iterable[Action], topics: Topics) -> list[Letter]:
    """All letters, the oldest first. ``topics``: this pipeline's."""
    aggregates = {topics.commands(name): name for name in AGGREGATES}
    by_record: dict[tuple[str, int, int, str], Letter] = {}
    for one in found:
        letter = _letter(one)
        if letter.partition < topics.partitions:
            aggregate = aggregates.get(letter.topic)
            letter = msgspec.structs.replace(letter, aggregate=aggregate)
        key = letter.topic, letter.partition, letter.offset, letter.stage
        first = by_record.get(key)
        by_record[key] = letter if first is None else _again(first, letter)
    for action in actions:
        key = action.topic, action.partition, action.offset, action.stage
        acted = by_record.get(key)
        if acted is not None:
            by_record[key] = msgspec.structs.replace(
                acted, open=acted.open and not action.settled, actions=(*acted.actions, action)
            )
    return list(by_record.values())


def text_of(data: bytes | None) -> str | None:
    """Bytes for people; what is no UTF-8 is escaped."""
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _letter(found: Found) -> Letter:
    # What was added stands behind what the record came with.
    said = {name: text_of(v.encode() if isinstance(v, str) else v) or "" for name, v in found.marks}
    return Letter(
        id=f"{found.partition}-{found.offset}",
        open=True,
        stage=said.get(headers.ERROR_STAGE, ""),
        code=said.get(headers.ERROR_CODE, ""),
        message=said.get(headers.ERROR_MESSAGE, ""),
        exception=said.get(headers.ERROR_EXCEPTION, ""),
        attempts=_number(said.get(headers.ERROR_ATTEMPT)) or 1,
        topic=said.get(headers.ERROR_TOPIC, ""),
        partition=_number(said.get(headers.ERROR_PARTITION)),
        offset=_number(said.get(headers.ERROR_OFFSET)),
        key=text_of(found.key),
        size=found.size,
        holds_key=headers.ERROR_HOLDS_KEY in said,
        correlation_id=said.get(headers.CORRELATION_ID),
        first_at_ms=found.at_ms,
        last_at_ms=found.at_ms,
        newest=found.offset,
    )


def _again(first: Letter, again: Letter) -> Letter:
    return msgspec.structs.replace(
        again,
        id=first.id,
        first_at_ms=first.first_at_ms,
        attempts=max(first.attempts, again.attempts),
    )


def _number(text: str | None) -> int:
    return whole_number(text) or 0
