"""Order and concurrency: a lane a payment, events of one lane one after the other, lanes side by side.

The invariant: an event is never begun before the one before it in its lane has ended, and no lane waits
for another. Everything here happens on one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable

from payments.asking import Asker, Unreadable, Work, read
from payments.progress import Progress
from payments.reaction import Refund
from runtime.records import IncomingRecord

Place = tuple[str, int]
"""Topic and number of a partition."""


class Lane:
    """One payment's events that wait, and the task that works them off."""

    def __init__(self) -> None:
        self.waiting: deque[Work] = deque()
        self.superseded = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Lanes:
    """All payments of the partitions that this process owns."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._lanes: dict[Place, dict[bytes, Lane]] = {}
        self._progress: dict[Place, Progress] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what no lane can go on from: a bug of this package."""

    @property
    def unfinished(self) -> int:
        """Events that have begun and not ended."""
        return sum(progress.unfinished for progress in self._progress.values())

    def own(self, places: Iterable[Place]) -> None:
        """The partitions are this process'; they are read from their committed offsets on."""
        for place in places:
            self._progress[place] = Progress()
            self._lanes[place] = {}

    def drop(self, places: Iterable[Place]) -> None:
        """The partitions are somebody else's: what is under way is asked again there."""
        for place in places:
            self._progress.pop(place, None)
            for lane in self._lanes.pop(place, {}).values():
                if lane.task is not None:
                    lane.task.cancel()

    def drop_all(self) -> None:
        """As ``drop``, of every partition."""
        self.drop(list(self._progress))

    def take(self, source: IncomingRecord) -> None:
        """The next event of its partition; of one that is not owned any more, nothing."""
        place = source.topic, source.partition
        progress = self._progress.get(place)
        if progress is None:
            return
        progress.begin(source.offset)
        try:
            work = read(source)
        except Unreadable as error:
            # It has no order with anything; its lane, of a key that is no id, is there to be dropped
            # with the others.
            lane, lanes, key = Lane(), self._lanes[place], b"/%d" % source.offset
            lanes[key] = lane
            lane.task = self._start(self._set_aside(lanes, key, progress, source, error))
            return
        if work is None:
            progress.end(source.offset)
            return
        self._queue(place, progress, work)

    def due(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """What can be committed, and is not yet."""
        found = {}
        for place in self._progress if places is None else places:
            progress = self._progress.get(place)
            offset = None if progress is None else progress.due()
            if offset is not None:
                found[place] = offset
        return found

    def committed(self, offsets: dict[Place, int]) -> None:
        """The broker has these."""
        for place, offset in offsets.items():
            if place in self._progress:
                self._progress[place].committed(offset)

    def _queue(self, place: Place, progress: Progress, work: Work) -> None:
        lanes, key = self._lanes[place], work.source.key or b""
        lane = lanes.setdefault(key, Lane())
        lane.waiting.append(work)
        if isinstance(work.task, Refund):
            lane.superseded.set()
        if lane.task is None:
            lane.task = self._start(self._work_off(lanes, key, lane, progress))

    async def _work_off(
        self, lanes: dict[bytes, Lane], key: bytes, lane: Lane, progress: Progress
    ) -> None:
        while lane.waiting:
            work = lane.waiting.popleft()
            # A refund is superseded by nothing.
            behind = asyncio.Event() if isinstance(work.task, Refund) else lane.superseded
            await self._asker.carry_out(work, behind)
            progress.end(work.source.offset)
        del lanes[key]

    async def _set_aside(
        self,
        lanes: dict[bytes, Lane],
        key: bytes,
        progress: Progress,
        source: IncomingRecord,
        error: Unreadable,
    ) -> None:
        await self._asker.set_aside(source, error)
        progress.end(source.offset)
        del lanes[key]

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._notice)
        return task

    def _notice(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            self.failed.set_exception(error)
