"""One view, one round: see where both sides are, and do the next thing (`cursor.plan`).

Invariants: rows are read before they are written and after what the target has was read; what was read
while Redis was emptied or a generation removed is thrown away. A pass that breaks off is begun again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from readmodels.keys import Keys
from readmodels.steps import drive
from runtime.printable import printable
from runtime.redis import Line
from sync import source
from sync.cursor import WHY, Follow, Pass, Reason, Seen, Stand, Wait, plan
from sync.rows import Fields, NoRow, RowId, RowType, Values
from sync.target import Committed, Overtaken, Rows, Target

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""A pass of another process that has not moved for so long counts as broken off."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a round brought: rows written and deleted, and left out because no table can hold them or the
    target refuses them. ``more``: there is more to do at once.
    """

    view: str
    written: int = 0
    deleted: int = 0
    left_out: int = 0
    more: bool = False
    passed: Reason | None = None


@dataclass(frozen=True, slots=True)
class PassProgress:
    """``done`` rows of a pass are in, of about ``total``. A pass that breaks off does not end."""

    view: str
    done: int
    total: int
    ended: bool = False


OnProgress = Callable[[PassProgress], None]


class _Restless(RuntimeError):
    """Redis was emptied, or another generation went live, while it was read; what was read is of no use."""


class Poller:
    """``stopping`` is asked between the transactions of a pass; ``spread``: see `keys.Keys`. Not to be shared
    between threads.
    """

    def __init__(
        self,
        prefix: str,
        line: Line,
        target: Target,
        on_progress: OnProgress,
        stopping: Callable[[], bool],
        *,
        spread: bool = False,
    ) -> None:
        self._prefix = prefix
        self._spread = spread
        self._line = line
        self._target = target
        self._on_progress = on_progress
        self._stopping = stopping
        self._stands: dict[str, Stand] = {}
        self._others: dict[str, tuple[int, float]] = {}

    def forget(self) -> None:
        """After a fault nobody knows whether the last transaction is in: ask the target again."""
        self._stands.clear()

    def round(self, view: str) -> Moved | Wait:
        """Raises RedisError, TargetAway, TargetUnfit, OtherTopics."""
        mine = view in self._stands
        stand = self._stands.get(view) or self._target.stand(view)
        if not mine and self._somebody_is_at_it(view, stand):
            return Wait("another process fills this target")
        self._stands[view] = stand
        seen = self._observe(view)
        try:
            match plan(stand, seen):
                case Wait() as wait:
                    return wait
                case Pass(reason):
                    return self._pass(view, stand, seen, reason)
                case Follow():
                    return self._follow(view, stand, seen)
        except Overtaken:
            self._stands.pop(view)
            return Moved(view, more=True)
        except _Restless:
            return Moved(view, more=True)

    def _somebody_is_at_it(self, view: str, stand: Stand) -> bool:
        """Two passes would overtake each other for ever; a row of the target says who is at it."""
        if not stand.filling:
            return False
        revision, since = self._others.get(view, (-1, 0.0))
        if revision != stand.revision:
            self._others[view] = (stand.revision, time.monotonic())
            return True
        return time.monotonic() - since < PATIENCE_S

    def _follow(self, view: str, stand: Stand, seen: Seen) -> Moved:
        batch = drive(self._line, source.changes(self._keys(view, seen), dict(stand.cursors)))
        _require_same(seen, batch.seen)
        if not batch.rows:
            return Moved(view)
        rows, no_rows = rows_to_write(batch.rows)
        after = replace(
            stand,
            cursors={**stand.cursors, **batch.cursors},
            covered=seen.positions if batch.drained else stand.covered,
        )
        done = self._commit(view, stand, after, rows)
        written, left_out = len(rows.upserts) - done.left_out, done.left_out + no_rows
        return Moved(view, written, done.deleted, left_out, more=not batch.drained)

    def _pass(self, view: str, stand: Stand, seen: Seen, reason: Reason) -> Moved:
        logger.info("%s: reading all rows, because %s", view, WHY[reason])
        began, keys = time.monotonic(), self._keys(view, seen)
        total = drive(self._line, source.stamped(keys))
        filling = replace(stand, number=stand.number + 1, filling=True)
        self._commit(view, stand, filling, Rows())
        done = left_out = 0
        self._on_progress(PassProgress(view, 0, total))
        for ids in source.scan(self._line, view, keys):
            if self._stopping():
                return Moved(view, done, left_out=left_out, more=True)
            if ids:
                found, now = drive(self._line, source.read(keys, ids))
                _require_same(seen, now)
                rows, no_rows = rows_to_write((row, fields) for row, fields in found if fields)
                refused = self._commit(view, self._stands[view], self._stands[view], rows).left_out
                done += len(rows.upserts) - refused
                left_out += no_rows + refused
                self._on_progress(PassProgress(view, done, max(total, done)))
        _require_same(seen, self._observe(view))
        whole = replace(
            self._stands[view],
            filling=False,
            identity=seen.identity,
            covered=seen.positions,
            topics=seen.topics,
            cursors=dict(enumerate(seen.newest)),
        )
        swept = self._commit(view, self._stands[view], whole, Rows(), sweep=True)
        self._on_progress(PassProgress(view, done, done, ended=True))
        text = "%s: %d rows in, %d deleted that the view has not, %.1f s"
        logger.info(text, view, done, swept.deleted, time.monotonic() - began)
        left_out += swept.left_out
        return Moved(view, done, swept.deleted, left_out, more=True, passed=reason)

    def _observe(self, view: str) -> Seen:
        return drive(self._line, source.observe(self._prefix, view, spread=self._spread))

    def _keys(self, view: str, seen: Seen) -> Keys:
        return Keys(self._prefix, view, seen.identity.generation, self._spread)

    def _commit(
        self, view: str, before: Stand, after: Stand, rows: Rows, *, sweep: bool = False
    ) -> Committed:
        done = self._target.commit(view, before, after, rows, sweep=sweep)
        self._stands[view] = done.stand
        return done


def _require_same(before: Seen, after: Seen) -> None:
    if before.identity != after.identity:
        raise _Restless(_Restless.__doc__)


def rows_to_write(found: Iterable[tuple[RowId, Fields]]) -> tuple[Rows, int]:
    """What a transaction brings, and how many rows no table can hold: those would stop all others.

    One row a primary key. An order that moves to another user while both keys are read is read twice, and
    where it was read last it is.
    """
    upserts: dict[tuple[RowType, object], tuple[RowType, Values, list[Values]]] = {}
    deletes, left_out = [], 0
    for (row_type, identity), fields in found:
        if not fields:
            deletes.append((row_type, row_type.key(identity)))
            continue
        try:
            row, parts = row_type.values(identity, fields)
        except NoRow as problem:
            left_out += 1
            logger.error("left out: %s", printable(str(problem)))
            continue
        key = row_type, row[row_type.table.primary_key.columns[0].name]
        upserts.pop(key, None)
        upserts[key] = row_type, row, parts
    return Rows(list(upserts.values()), deletes), left_out
