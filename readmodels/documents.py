"""How a plain document view is kept: one hash an aggregate, and a place in a ranking if it has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from readmodels.keys import Keys, bucket_of
from readmodels.records import Change
from readmodels.scripts import DOCUMENT, BucketCalls
from readmodels.steps import Steps, pairs
from runtime.redis import Command

Pieces: TypeAlias = dict[str, Any]
"""What stands of an aggregate, or has to: its row, its place in a ranking, … by name."""

Seen: TypeAlias = tuple[str | None, str | None]
"""Version of what stands, and version at which it was deleted, as Redis has them."""


class Document(msgspec.Struct, frozen=True, gc=False):
    """The hash as it has to be; ``score`` None: not in the ranking."""

    fields: list[str]
    score: int | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """Which kinds of keys a view of documents uses."""

    kind: str
    ranking: str | None = None

    def apply(self, keys: Keys, changes: Iterable[Change[Document]]) -> Steps[None]:
        """Bring the changes (one an aggregate) into the view. Repeating it changes nothing."""
        yield self._calls(keys, changes)

    def _calls(self, keys: Keys, changes: Iterable[Change[Document]]) -> list[Command]:
        calls = BucketCalls(keys.stamps)
        for change in changes:
            bucket = bucket_of(change.id)
            call = calls.of(bucket)
            row = change.row
            call.add(
                change.id,
                call.key(keys.key(self.kind, bucket, change.id)),
                call.key(keys.key("gone", bucket, change.id)),
                call.key(keys.key(self.ranking, bucket)) if self.ranking else 0,
                "" if change.version is None else str(change.version),
                int(change.reset),
                change.id,
                "" if row is None or row.score is None else str(row.score),
                row.fields if row else [],
            )
        return calls.commands(DOCUMENT)

    def unit_of(self, kind: str, identity: str, member: str) -> str:
        """A document and its place in the ranking are one unit: the aggregate's id."""
        return identity if kind == self.kind else member

    def touched(self, _keys: Keys, changes: Iterable[Change[Document]]) -> Steps[set[str]]:
        """The units that these changes may change."""
        yield []
        return {change.id for change in changes}

    def pieces(self, keys: Keys, rows: Mapping[str, Document | None]) -> Steps[dict[str, Pieces]]:
        """The row and the score of each, as they stand."""
        ranking, buckets = self.ranking, {identity: bucket_of(identity) for identity in rows}
        found = yield [
            ("HGETALL", keys.key(self.kind, bucket, identity))
            for identity, bucket in buckets.items()
        ]
        scores: list[str | None] = [None] * len(found)
        if ranking is not None:
            scores = yield [
                ("ZSCORE", keys.key(ranking, bucket), identity)
                for identity, bucket in buckets.items()
            ]
        return {
            identity: {
                "row": pairs(row) or None,
                "score": None if score is None else float(score),
            }
            for identity, row, score in zip(buckets, found, scores, strict=True)
        }

    def expected(self, row: Document | None) -> Pieces:
        """What has to stand."""
        if row is None:
            return {"row": None, "score": None}
        score = None if row.score is None else float(row.score)
        return {"row": pairs(row.fields), "score": score}

    def seen(self, keys: Keys, identity: str) -> Steps[Seen]:
        """What stands of an aggregate."""
        bucket = bucket_of(identity)
        replies = yield [
            ("HGET", keys.key(self.kind, bucket, identity), "version"),
            ("GET", keys.key("gone", bucket, identity)),
        ]
        return replies[0], replies[1]

    def mend(
        self,
        keys: Keys,
        identity: str,
        change: Change[Document] | None,
        seen: Seen,
        _strays: Sequence[str],
    ) -> Steps[bool]:
        """Put the row there (None: nothing), unless a newer one has come. False if something came in between.
        On one connection.
        """
        bucket = bucket_of(identity)
        document, gone = keys.key(self.kind, bucket, identity), keys.key("gone", bucket, identity)
        yield [("WATCH", document, gone)]
        stands = yield from self.seen(keys, identity)
        if not may_replace(stands, change, seen):
            yield [("UNWATCH",)]
            return True  # written meanwhile, all of it, from a newer record
        forced = Change(
            identity, change.version if change else None, change.row if change else None, reset=True
        )
        replies = yield [
            ("MULTI",),
            ("DEL", document),
            *self._calls(keys, [forced]),
            ("EXEC",),
        ]
        return replies[-1] is not None


def may_replace(stands: Seen, change: Change[Any] | None, seen: Seen) -> bool:
    """Whether a record may take the place of what stands: it was seen before the log was read, so the
    record is the newer one whatever the version says; or it is not newer than the record.
    """
    if stands == seen:
        return True
    if change is None or change.version is None:
        return False
    try:
        return max(int(stands[0] or 0), int(stands[1] or 0)) <= change.version
    except ValueError:
        return False
