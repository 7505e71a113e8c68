"""How a plain document view is kept: one hash an aggregate, and a place in a ranking if it has one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from readmodels.keys import Keys, bucket_of
from readmodels.records import Change
from readmodels.scripts import DOCUMENT, BucketCalls
from readmodels.steps import Steps


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
        yield calls.commands(DOCUMENT)
