"""How far each view is: kept in Redis, written after the data it covers, and where reading resumes.

Redis is the only one who knows. Flushed or restored from an older state it says so, by not having
the position from which a batch goes on; reading then resumes at what it does have.

On a cluster a view's buckets lie on several servers, and each may be the one that lost something. So there
the positions stand in every bucket (`Keys.all_positions`), all are moved when a batch is in, and the view is
where the last of them is: what one bucket lacks is read again for all, and changes nothing in the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from readmodels.keys import FIRST_GENERATION, Keys, views_key
from readmodels.records import Change, fold
from readmodels.scripts import POSITION
from readmodels.steps import Steps, pairs
from readmodels.unreadable import parsed
from readmodels.views import View
from runtime.redis import Command

TopicPart = tuple[str, int]
NOWHERE: Final = -1
BORN: Final = "born"
"""The field with the name of this filling of a generation; no topic is called so, they have dots."""

_SEPARATOR: Final = ":"  # which no topic's name may contain; a field without it is a topic's id


def field(part: TopicPart) -> str:
    """The name of a partition in the hash of positions."""
    return f"{part[0]}{_SEPARATOR}{part[1]}"


def part(name: str) -> TopicPart:
    """The partition that a field names."""
    topic, _, number = name.rpartition(_SEPARATOR)
    return topic, int(number)


def live(prefix: str, views: Sequence[View]) -> Steps[dict[str, int]]:
    """View → the generation that queries read."""
    replies = yield [("HMGET", views_key(prefix), *(view.name for view in views))]
    return {
        view.name: parsed(views_key(prefix), partial(int, generation or FIRST_GENERATION))
        for view, generation in zip(views, replies[0], strict=True)
    }


def read(keys: Sequence[Keys]) -> Steps[list[dict[TopicPart, int]]]:
    """All positions of each of these generations."""
    replies = yield [("HGETALL", key) for k in keys for key in k.all_positions]
    hashes = iter([pairs(reply) for reply in replies])
    return [
        parsed(k.positions, partial(lowest, [next(hashes) for _ in k.all_positions])) for k in keys
    ]


def lowest(hashes: Sequence[Mapping[str, str]]) -> dict[TopicPart, int]:
    """The positions of a generation: of a partition the lowest, if all of its hashes have one."""
    first, *others = hashes
    return {
        part(name): min([int(at), *(int(other[name]) for other in others)])
        for name, at in first.items()
        if _SEPARATOR in name and all(name in other for other in others)
    }


def begin(keys: Keys, starts: Mapping[TopicPart, int]) -> Steps[None]:
    """Set the positions that are missing. From then on a missing one means that Redis was emptied.

    A generation that begins gets a name that no other has: emptied and filled again, it is another one.
    """
    fields: dict[str, str | int] = {BORN: uuid.uuid4().hex}
    fields |= {field(at): offset for at, offset in starts.items()}
    yield [("HSETNX", key, name, to) for key in keys.all_positions for name, to in fields.items()]


def probe(keys: Sequence[Keys]) -> Steps[None]:
    """Write nothing, by a command that writes: a server that is full or read-only refuses it.

    One where the positions are no hash refuses it, too: then no batch is to blame.
    """
    places = [key for k in keys for key in k.all_positions]
    yield [("SETRANGE", f"{key}:probe", 0, "") for key in places]
    yield [("HEXISTS", key, BORN) for key in places]


def rename(keys: Keys) -> Steps[None]:
    """Rows were written past the order of the log: whoever followed the changes of this filling looks at
    all of it again.
    """
    born = uuid.uuid4().hex
    yield [("HSET", key, BORN, born) for key in keys.all_positions]


def claim(keys: Keys, topic_ids: Mapping[str, str]) -> Steps[dict[str, str]]:
    """Say whose offsets these positions are, unless it was said before; returns what was said first.

    A topic that was deleted and made anew has another id, and offsets that mean other records.
    """
    places = keys.all_positions
    replies = yield [
        *(("HSETNX", key, topic, id_) for key in places for topic, id_ in topic_ids.items()),
        *(("HMGET", key, *topic_ids) for key in places),
    ]
    said = dict(topic_ids)
    for ids in replies[-len(places) :]:
        said |= {t: id_ for t, id_ in zip(topic_ids, ids, strict=True) if id_ != topic_ids[t]}
    return said


def topics(keys: Sequence[Keys], topic: str) -> Steps[list[str | None]]:
    """The id of the topic that each of these generations was made from; None: nobody has said."""
    replies = iter((yield [("HGET", key, topic) for k in keys for key in k.all_positions]))
    said = [[next(replies) for _ in k.all_positions] for k in keys]
    return [next((id_ for id_ in ids if id_ is not None), None) for ids in said]


def advance_commands(keys: Keys, at: TopicPart, start: int, after: int) -> list[Command]:
    """Move one position from ``start`` (or beyond) to ``after``; see lua/position.lua for the replies."""
    return [POSITION.call([key], field(at), start, after) for key in keys.all_positions]


def apply_batch(
    batch: Iterable[tuple[View, Keys, list[Change[Any]]]],
    covers: Mapping[TopicPart, tuple[int, int]],
) -> Steps[bool]:
    """Data first, then the positions that cover it, on the same line.

    ``covers``: partition → first offset and the one after the last. False when Redis did not have
    what lies before: the data is in, the position is not, and reading has to resume at what Redis says.
    """
    parts = list(batch)
    for attempt in (1, 2):
        for view, keys, changes in parts:
            if changes:
                yield from view.apply(keys, fold(changes))
        moves = [
            (after, command)
            for _, keys, _ in parts
            for at, (start, after) in covers.items()
            for command in advance_commands(keys, at, start, after)
        ]
        replies = yield [command for _, command in moves]
        if all(int(reply) >= after for reply, (after, _) in zip(replies, moves, strict=True)):
            return True
        # Emptied in the middle of this batch, part of it may be left without what was written first
        # (an order without its place). Once more, and all that stands is whole.
        if attempt == 2:
            break
    return False
