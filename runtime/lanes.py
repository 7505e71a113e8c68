"""Order and concurrency of work that follows from records: a lane a key, one after the other in a lane,
lanes side by side.

For roles whose work is outside of Kafka's transactions. The invariant: work is never begun before the one
before it in its lane has ended, and no lane waits for another. Everything here happens on one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from runtime.progress import Progress

Place = tuple[str, int]
"""Topic and number of a partition."""

W = TypeVar("W")


class Lane(Generic[W]):
    """What waits of one key, and the task that works it off."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, W, int]] = deque()
        self.superseded = asyncio.Event()
        """Set when work has come that makes what is before it in the lane pointless."""
        self.task: asyncio.Task[None] | None = None


class Lanes(Generic[W]):
    """All lanes of the partitions that this process owns.

    ``carry_out`` returns when all that follows from the work is done for good; it is told when its lane
    is superseded.
    """

    def __init__(self, carry_out: Callable[[W, asyncio.Event], Awaitable[None]]) -> None:
        self._carry_out = carry_out
        self._lanes: dict[Place, dict[bytes, Lane[W]]] = {}
        self._progress: dict[Place, Progress] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what no lane can go on from: whatever ``carry_out`` raised."""

    @property
    def unfinished(self) -> int:
        """Records whose work has begun and not ended."""
        return sum(progress.unfinished for progress in self._progress.values())

    @property
    def held(self) -> int:
        """Records that would be read again after a crash: see ``Progress.held``."""
        return sum(progress.held for progress in self._progress.values())

    @property
    def held_bytes(self) -> int:
        """Size of the records whose work has not ended, as far as it was told."""
        return sum(progress.size for progress in self._progress.values())

    def own(self, places: Iterable[Place]) -> None:
        """The partitions are this process'; they are read from their committed offsets on."""
        for place in places:
            self._progress[place] = Progress()
            self._lanes[place] = {}

    def drop(self, places: Iterable[Place]) -> None:
        """The partitions are somebody else's: what is under way is begun again there."""
        for place in places:
            self._progress.pop(place, None)
            for lane in self._lanes.pop(place, {}).values():
                if lane.task is not None:
                    lane.task.cancel()

    def drop_all(self) -> None:
        """As ``drop``, of every partition."""
        self.drop(list(self._progress))

    def owns(self, place: Place) -> bool:
        """Whether the partition is this process'."""
        return place in self._progress

    def pass_by(self, place: Place, offset: int) -> None:
        """A record of an owned partition from which nothing follows."""
        progress = self._progress[place]
        progress.begin(offset)
        progress.end(offset)

    def queue(
        self,
        place: Place,
        offset: int,
        key: bytes,
        work: W,
        *,
        supersedes: bool = False,
        size: int = 0,
    ) -> None:
        """Work that follows from a record of an owned partition; records come in the order of offsets.
        ``size``: bytes of memory that it takes until it has ended.
        """
        self._progress[place].begin(offset)
        self._progress[place].size += size
        lane = self._lanes[place].setdefault(key, Lane())
        lane.waiting.append((offset, work, size))
        if supersedes:
            lane.superseded.set()
        if lane.task is None:
            work_off = self._work_off(place, key, lane)
            lane.task = asyncio.get_running_loop().create_task(work_off)
            lane.task.add_done_callback(self._notice)

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

    async def _work_off(self, place: Place, key: bytes, lane: Lane[W]) -> None:
        lanes, progress = self._lanes[place], self._progress[place]
        while lane.waiting:
            offset, work, size = lane.waiting.popleft()
            await self._carry_out(work, lane.superseded)
            progress.end(offset)
            progress.size -= size
        del lanes[key]

    def _notice(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            self.failed.set_exception(error)
