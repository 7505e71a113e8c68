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
from runtime.redis import Line
from sync import source
from sync.cursor import WHY, Follow, Pass, Reason, Seen, Stand, Wait, plan
from sync.rows import Fields, NoRow, RowId
from sync.target import Overtaken, Rows, Target

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""A pass of another process that has not moved for so long counts as broken off."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a round brought: rows written and deleted. ``more``: there is more to do at once."""

    view: str
    written: int = 0
    deleted: int = 0
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
        """Raises RedisError, TARGET_FAULTS, TargetUnfit, OtherTopics."""
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
        rows = _rows(batch.rows)
        after = replace(
            stand,
            cursors={**stand.cursors, **batch.cursors},
            covered=seen.positions if batch.drained else stand.covered,
        )
        deleted = self._commit(view, stand, after, rows)
        return Moved(view, len(rows.upserts), deleted, more=not batch.drained)

    def _pass(self, view: str, stand: Stand, seen: Seen, reason: Reason) -> Moved:
        logger.info("%s: reading all rows, because %s", view, WHY[reason])
        began, keys = time.monotonic(), self._keys(view, seen)
        total = drive(self._line, source.stamped(keys))
        filling = replace(stand, number=stand.number + 1, filling=True)
        self._commit(view, stand, filling, Rows())
        done = 0
        self._on_progress(PassProgress(view, 0, total))
        for ids in source.scan(self._line, view, keys):
            if self._stopping():
                return Moved(view, done, more=True)
            if ids:
                found, now = drive(self._line, source.read(keys, ids))
                _require_same(seen, now)
                rows = _rows((row, fields) for row, fields in found if fields)
                done += len(rows.upserts)
                self._commit(view, self._stands[view], self._stands[view], rows)
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
        deleted = self._commit(view, self._stands[view], whole, Rows(), sweep=True)
        self._on_progress(PassProgress(view, done, done, ended=True))
        text = "%s: %d rows in, %d deleted that the view has not, %.1f s"
        logger.info(text, view, done, deleted, time.monotonic() - began)
        return Moved(view, done, deleted, more=True, passed=reason)

    def _observe(self, view: str) -> Seen:
        return drive(self._line, source.observe(self._prefix, view, spread=self._spread))

    def _keys(self, view: str, seen: Seen) -> Keys:
        return Keys(self._prefix, view, seen.identity.generation, self._spread)

    def _commit(
        self, view: str, before: Stand, after: Stand, rows: Rows, *, sweep: bool = False
    ) -> int:
        self._stands[view], deleted = self._target.commit(view, before, after, rows, sweep=sweep)
        return deleted


def _require_same(before: Seen, after: Seen) -> None:
    if before.identity != after.identity:
        raise _Restless(_Restless.__doc__)


def _rows(found: Iterable[tuple[RowId, Fields]]) -> Rows:
    """What a transaction brings. A row that no table can hold is left out: it would stop all others."""
    upserts, deletes = [], []
    for (row_type, identity), fields in found:
        if not fields:
            deletes.append((row_type, row_type.key(identity)))
            continue
        try:
            upserts.append((row_type, *row_type.values(identity, fields)))
        except NoRow as problem:
            logger.error("left out: %s", problem)
    return Rows(upserts, deletes)
