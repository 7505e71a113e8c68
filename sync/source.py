"""What is asked of Redis: where a view stands, what has changed, and what the rows say.

Conversations without I/O (`readmodels.steps`). Each row comes with what Redis was while it was read
(`Batch.seen`): were it emptied or the generation removed meanwhile, rows would seem to be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from readmodels import generations, positions
from readmodels.keys import BUCKETS, FIRST_GENERATION, Keys, bucket_of, views_key
from readmodels.positions import BORN
from readmodels.steps import Steps, pairs
from runtime.redis import Command, Line, Reply
from sync.cursor import PAGE, Identity, Seen, Stamp, Stamped, whole_stamps
from sync.rows import ROW_TYPES, Fields, RowId, rows_of

_FIRST_POSITIONS: Final = 2  # replies before those of the positions


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as they stand; no fields: there is no such row. ``cursors``: where to go on, by bucket.

    ``drained``: that was all there was. ``seen``: after the rows were read.
    """

    rows: Sequence[tuple[RowId, Fields]]
    cursors: dict[int, Stamp]
    drained: bool
    seen: Seen


def observe(prefix: str, view: str, *, spread: bool = False) -> Steps[Seen]:
    """Where a view stands. Positions are read before anything that they cover; on a cluster (``spread``),
    those of a bucket before the rest of it.
    """
    replies = yield [("HGET", views_key(prefix), view)]
    generation = int(replies[0] or FIRST_GENERATION)
    while True:
        seen = yield from _observe(Keys(prefix, view, generation, spread))
        if seen.identity.generation == generation:
            return seen
        generation = seen.identity.generation  # switched between the two questions


def changes(keys: Keys, cursors: dict[int, Stamp]) -> Steps[Batch]:
    """The next rows that have changed since these cursors, some of each bucket."""
    pages = yield from _pages(keys, cursors)
    rest = yield from _rest(keys, pages)
    ids: dict[RowId, None] = {}
    moved: dict[int, Stamp] = {}
    for bucket, page in enumerate(pages):
        changed, stamp = whole_stamps(page, rest.get(bucket, ()))
        if stamp is not None:
            moved[bucket] = stamp
        for identity in changed:
            ids.update(dict.fromkeys(rows_of(keys.view, identity)))
    rows, after = yield from read(keys, list(ids))
    return Batch(rows, moved, all(len(page) < PAGE for page in pages), after)


def read(keys: Keys, ids: Sequence[RowId]) -> Steps[tuple[list[tuple[RowId, Fields]], Seen]]:
    """The rows as they stand, and then where the view stands."""
    replies = yield [("HGETALL", _key(keys, row)) for row in ids]
    rows: list[tuple[RowId, Fields]] = [
        (row, pairs(reply)) for row, reply in zip(ids, replies, strict=True)
    ]
    # In a pipeline of its own: on a cluster, two servers answer one pipeline in any order.
    seen = yield from _observe(keys)
    return rows, seen


def scan(line: Line, view: str, keys: Keys) -> Iterator[list[RowId]]:
    """All rows of a generation, some at a time. One may come twice; none that stays is left out."""
    kinds = {row_type.kind: row_type for row_type in ROW_TYPES[view]}
    for page in generations.pages(line, keys):
        found: list[RowId] = []
        for key in page:
            kind, _, identity = key.removeprefix(keys.stem).partition("}:")[2].partition(":")
            if kind in kinds:
                found.append((kinds[kind], identity))
        yield found


def stamped(keys: Keys) -> Steps[int]:
    """How many rows have a stamp: about how many rows there are."""
    replies = yield [("ZCARD", keys.stamps(bucket)[0]) for bucket in range(BUCKETS)]
    return sum(replies)


def _key(keys: Keys, row: RowId) -> str:
    row_type, identity = row
    return keys.key(row_type.kind, bucket_of(identity.partition("/")[0]), identity)


def _observe(keys: Keys) -> Steps[Seen]:
    commands: list[Command] = [
        ("HGET", views_key(keys.prefix), keys.view),
        ("INFO", "server"),
        *(("HGETALL", key) for key in keys.all_positions),
    ]
    for bucket in range(BUCKETS):
        changed, removed = keys.stamps(bucket)
        commands += [("ZREVRANGE", changed, 0, 0, "WITHSCORES"), ("ZSCORE", removed, "")]
    replies = yield commands
    return _seen(keys, replies)


def _seen(keys: Keys, replies: Sequence[Reply]) -> Seen:
    """If another generation is live than the one whose keys were read, none of them is of use."""
    first_of_buckets = _FIRST_POSITIONS + len(keys.all_positions)
    generation = int(replies[0] or FIRST_GENERATION)
    hashes = [pairs(reply) for reply in replies[_FIRST_POSITIONS:first_of_buckets]]
    if generation != keys.generation:
        hashes = [{} for _ in hashes]
    at = positions.lowest(hashes)
    fields = {name: value for one in hashes for name, value in one.items()}
    of_buckets = replies[first_of_buckets:]
    return Seen(
        # One bucket that was emptied and filled again makes it another filling.
        Identity(generation, _joined(one.get(BORN, "") for one in hashes), _run_ids(replies[1])),
        {positions.field(part): offset for part, offset in at.items()},
        {name: id_ for name, id_ in fields.items() if ":" not in name and name != BORN},
        [_stamp(newest[1]) if newest else 0 for newest in of_buckets[::2]],
        [_stamp(horizon or 0) for horizon in of_buckets[1::2]],
    )


def _run_ids(info: str) -> str:
    """Of the server, or of all masters of a cluster: stamps of a master that took over may be older."""
    found = (line for line in info.splitlines() if line.startswith("run_id:"))
    return _joined(line.removeprefix("run_id:").strip() for line in found)


def _joined(texts: Iterable[str]) -> str:
    return " ".join(sorted(set(texts)))


def _stamp(score: str | int) -> Stamp:
    return int(float(score))  # exact: below 2^53


def _pages(keys: Keys, cursors: dict[int, Stamp]) -> Steps[list[list[Stamped]]]:
    replies = yield [
        _by_stamp(keys, bucket, f"({cursors.get(bucket, 0)}", "+inf", PAGE)
        for bucket in range(BUCKETS)
    ]
    return [list(_scored(reply)) for reply in replies]


def _rest(keys: Keys, pages: Sequence[Sequence[Stamped]]) -> Steps[dict[int, list[Stamped]]]:
    """Of each bucket with a full page, all rows of its last stamp."""
    full = {bucket: page[-1][1] for bucket, page in enumerate(pages) if len(page) >= PAGE}
    replies = yield [_by_stamp(keys, bucket, at, at, -1) for bucket, at in full.items()]
    return {b: list(_scored(reply)) for b, reply in zip(full, replies, strict=True)}


def _by_stamp(keys: Keys, bucket: int, low: str | int, high: str | int, most: int) -> Command:
    changed, _ = keys.stamps(bucket)
    return ("ZRANGEBYSCORE", changed, low, high, "WITHSCORES", "LIMIT", 0, most)


def _scored(reply: Sequence[str]) -> Iterable[Stamped]:
    return ((id_, _stamp(at)) for id_, at in zip(reply[::2], reply[1::2], strict=True))
