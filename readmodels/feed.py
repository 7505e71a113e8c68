"""From a batch to the views: read the records, apply the changes, move the positions, or wait and retry.

One `Feed` a process. The agents hand it batches, the transport asks it where to read, `watch` uses it to
put right what got lost in between. Invariant: a position in Redis covers only what is applied, and the
only way past a record is that it is in the views or in the dead letters.

A batch that Redis refuses because of what is in it is applied in halves, down to the one record that is
refused; that one goes to the dead letters (`refusals` tells such a refusal from a fault that passes).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from readmodels import positions, refusals
from readmodels.deadletters import DeadLetter, DeadLetters
from readmodels.keys import Keys
from readmodels.orders import Restless
from readmodels.positions import TopicPart
from readmodels.records import Change, Unreadable, read
from readmodels.steps import drive_async
from readmodels.transport import Batch
from readmodels.views import View
from runtime.condition import Condition
from runtime.redis import AsyncLine

logger = logging.getLogger(__name__)

REDIS_FAULTS: Final = (RedisError, OSError, TimeoutError)
PASSING_FAULTS: Final = (*REDIS_FAULTS, KafkaError, Restless)
"""What goes by itself, sooner or later: the same is tried again."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 3.0

Reading = Mapping[str, Sequence[View]]
Changes = list[tuple[View, list[Change[Any]]]]


class Piece(NamedTuple):
    """A batch or part of one, what it changes, and the dead letters that have to be sent first."""

    batch: Batch
    changes: Changes
    letters: list[DeadLetter]


class Reader(Protocol):
    """What the feed needs of the consumer."""

    async def beginnings(self, parts: Iterable[TopicPart]) -> Mapping[TopicPart, int]: ...

    async def place(self, at: Mapping[TopicPart, int]) -> None: ...

    async def forget(self, parts: Iterable[TopicPart]) -> None: ...

    def epoch(self, part: TopicPart) -> int | None: ...


class Feed:
    """``reading``: events topic → the views fed by it. ``new_line`` makes a connection to Redis;
    ``at_once``: batches of one topic, of different partitions, in work at the same time; ``spread``: see
    `keys.Keys`; ``topic_ids``: events topic → its id, see
    `positions.claim`.
    """

    def __init__(
        self,
        prefix: str,
        reading: Reading,
        new_line: Callable[[], AsyncLine],
        letters: DeadLetters,
        *,
        topic_ids: Mapping[str, str],
        at_once: int = 1,
        spread: bool = False,
    ) -> None:
        self.reader: Reader | None = None  # set once there is a consumer
        self._prefix = prefix
        self._spread = spread
        self._reading = reading
        self._letters = letters
        self._topic_ids = topic_ids
        self._views = [view for views in reading.values() for view in views]
        self._live: dict[str, int] = {}
        self._applied: dict[TopicPart, int] = {}
        self._locks: defaultdict[TopicPart, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._working: Counter[str] = Counter()
        # A batch keeps its connection to the end; see runtime/redis/line.py.
        self._lines = {topic: _pool(new_line, at_once) for topic in reading}
        self._own_line = new_line()
        self._own_turn = asyncio.Lock()
        self._redis = Condition("Redis")
        self._conditions = {topic: Condition(f"applying {topic}") for topic in reading}

    # Where to read: for the transport, after a rebalance.

    def applied(self) -> Mapping[TopicPart, int]:
        """Partition → up to where its views are, as far as this process knows."""
        return self._applied

    async def resume(self, parts: Iterable[TopicPart]) -> Mapping[TopicPart, int]:
        """Where to read on. Partitions are missing while Redis or the broker does not say."""
        wanted = list(parts)
        for part in wanted:
            self._applied.pop(part, None)
        try:
            known = await self.positions(wanted)
            await self._begin([part for part, at in known.items() if at is None])
            known = await self.positions(wanted)
        except PASSING_FAULTS as fault:
            self._redis.broken(fault)
            return {}
        self._redis.whole()
        found = {part: at for part, at in known.items() if at is not None}
        self._applied |= found
        return found

    async def positions(self, parts: Iterable[TopicPart]) -> dict[TopicPart, int | None]:
        """Partition → the lowest position among its views in their live generations; None: unknown.

        Raises RedisError and its kin.
        """
        async with self._own_turn:
            live = await drive_async(self._own_line, positions.live(self._prefix, self._views))
            if live != self._live:
                if self._live:
                    logger.info("live generations: %s", live)
                self._live = live
            keys = [self._keys(view) for view in self._views]
            found = await drive_async(self._own_line, positions.read(keys))
        by_view = dict(zip((view.name for view in self._views), found, strict=True))
        answer: dict[TopicPart, int | None] = {}
        for part in parts:
            of_views = [by_view[view.name].get(part) for view in self._reading[part[0]]]
            known = [at for at in of_views if at is not None]
            answer[part] = min(known) if len(known) == len(of_views) else None
        return answer

    async def _begin(self, parts: list[TopicPart]) -> None:
        if not parts or self.reader is None:
            return
        starts = await self.reader.beginnings(parts)
        async with self._own_turn:
            for topic, views in self._reading.items():
                mine = {part: at for part, at in starts.items() if part[0] == topic}
                for view in views if mine else ():
                    keys = self._keys(view)
                    await drive_async(self._own_line, positions.begin(keys, mine))
                    await drive_async(
                        self._own_line, positions.claim(keys, {topic: self._topic_ids[topic]})
                    )

    # Applying: for the agents.

    def working(self, topic: str) -> bool:
        """Whether the agent of this topic has a batch in hand."""
        return self._working[topic] > 0

    def lock(self, part: TopicPart) -> asyncio.Lock:
        """Held by whoever applies or mends this partition."""
        return self._locks[part]

    async def handle(self, batch: Batch) -> None:
        """Returns when the batch is in, or when it is somebody else's matter.

        Nothing is awaited before the lock is asked for, so batches of a partition keep their order.
        """
        self._working[batch.part[0]] += 1
        try:
            if self._is_current(batch):
                changes, letters = split(self._reading[batch.part[0]], batch.records)
                async with self.lock(batch.part):
                    await self._persist(batch, changes, letters)
        finally:
            self._working[batch.part[0]] -= 1

    async def _persist(self, batch: Batch, changes: Changes, letters: list[DeadLetter]) -> None:
        pieces = deque([Piece(batch, changes, letters)])
        while pieces and self._is_current(batch):
            piece = pieces.popleft()
            refusal = await self._settle(piece)
            if refusal is not None:
                pieces.extendleft(reversed(self._smaller(piece, refusal)))

    async def _settle(self, piece: Piece) -> Exception | None:
        """Bring a piece in, however long what passes takes. Return what it is refused for, else None."""
        batch, changes, letters = piece
        condition = self._conditions[batch.part[0]]
        attempt = 0
        while self._is_current(batch):
            try:
                await self._send(batch.part, letters)
                letters = []
                whole = await self._apply(batch, changes)
            except MemoryError:
                raise
            except Exception as fault:  # noqa: BLE001 - what no retry mends must not stop the partition
                if await self._is_refusal(piece, fault):
                    return fault
                condition.broken(fault)
                attempt += 1
                await asyncio.sleep(_pause(attempt))
                continue
            condition.whole()
            await self._moved(batch, whole=whole)
            break
        return None

    async def _send(self, part: TopicPart, letters: list[DeadLetter]) -> None:
        if letters:
            await self._letters.send(letters)
            logger.warning("%d records of %s went to the dead letters", len(letters), part)

    async def _is_refusal(self, piece: Piece, fault: Exception) -> bool:
        """True if what was to be applied is at fault, and not something that passes."""
        if isinstance(fault, PASSING_FAULTS) and not refusals.may_be_content(fault):
            return False
        if not any(changes for _, changes in piece.changes):
            return False  # there was only a position to move: no record is to blame
        try:
            async with self._own_turn:
                keys = [self._keys(view) for view in self._reading[piece.batch.part[0]]]
                await drive_async(self._own_line, positions.probe(keys))
        except REDIS_FAULTS:
            return False
        return True

    def _smaller(self, piece: Piece, refusal: Exception) -> list[Piece]:
        """Return the halves of a piece; of a single record, its dead letter."""
        batch = piece.batch
        views, records = self._reading[batch.part[0]], batch.records
        if len(records) < 2:
            nothing: Changes = [(view, []) for view in views]
            letters = [DeadLetter(record, refusals.unreadable(refusal)) for record in records]
            return [Piece(batch, nothing, letters)]
        return [Piece(half, split(views, half.records)[0], []) for half in halves(batch)]

    async def _moved(self, batch: Batch, *, whole: bool) -> None:
        if not self._is_current(batch):
            return
        if whole:
            self._applied[batch.part] = batch.after
        else:
            logger.warning("Redis does not have %s up to %d", batch.part, batch.start)
            await self.replace(batch.part)

    async def _apply(self, batch: Batch, changes: Changes) -> bool:
        parts = [(view, self._keys(view), of_view) for view, of_view in changes]
        covers = {batch.part: (batch.start, batch.after)}
        lines = self._lines[batch.part[0]]
        line = await lines.get()
        try:
            return await drive_async(line, positions.apply_batch(parts, covers))
        finally:
            lines.put_nowait(line)

    def _is_current(self, batch: Batch) -> bool:
        return self.reader is not None and self.reader.epoch(batch.part) == batch.epoch

    # Mending: for the watch. The partition's lock is held.

    async def replace(self, part: TopicPart) -> None:
        """Read on from where Redis says; not at all while it does not say."""
        if self.reader is None:
            return
        known = await self.resume([part])
        if known:
            await self.reader.place(known)
        else:
            await self.reader.forget([part])

    async def skip(self, part: TopicPart, start: int, after: int) -> None:
        """Move the position over offsets that hold no record. Raises RedisError and its kin."""
        parts: list[tuple[View, Keys, list[Change[Any]]]] = [
            (view, self._keys(view), []) for view in self._reading[part[0]]
        ]
        async with self._own_turn:
            steps = positions.apply_batch(parts, {part: (start, after)})
            whole = await drive_async(self._own_line, steps)
        if whole:
            self._applied[part] = after
        else:
            await self.replace(part)

    def redis_is(self, fault: BaseException | None) -> None:
        """Whether Redis answered; said once per change."""
        if fault is None:
            self._redis.whole()
        else:
            self._redis.broken(fault)

    async def close(self) -> None:
        """Drop all connections."""
        await self._letters.close()
        await self._own_line.close()
        for lines in self._lines.values():
            while not lines.empty():
                await lines.get_nowait().close()

    def _keys(self, view: View) -> Keys:
        return Keys(self._prefix, view.name, self._live[view.name], self._spread)


def split(views: Sequence[View], records: Sequence[Any]) -> tuple[Changes, list[DeadLetter]]:
    """What the records (aiokafka's) mean to each view, and which no view can read."""
    changes: Changes = []
    letters: dict[int, DeadLetter] = {}
    for view in views:
        of_view: list[Change[Any]] = []
        for record in records:
            try:
                change = read(record.key, record.value, record.headers, view.states, view.project)
            except Unreadable as cause:
                letters.setdefault(record.offset, DeadLetter(record, cause))
                continue
            if change is not None:
                of_view.append(change)
        changes.append((view, of_view))
    return changes, list(letters.values())


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch of several records into two that follow each other."""
    records = batch.records
    middle = len(records) // 2
    cut = records[middle].offset
    return (
        replace(batch, after=cut, records=records[:middle]),
        replace(batch, start=cut, records=records[middle:]),
    )


def _pool(new_line: Callable[[], AsyncLine], size: int) -> asyncio.Queue[AsyncLine]:
    lines: asyncio.Queue[AsyncLine] = asyncio.Queue()
    for _ in range(size):
        lines.put_nowait(new_line())
    return lines


def _pause(attempt: int) -> float:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)
