"""One webhook: where it stands in each partition, and whether it keeps up with what all read together.

A partition of the history that this process owns is *known* (its position was asked for), then *behind*,
then *in step*: what the shared consumer reads is the next that this webhook needs. A webhook that is full
falls behind, and catches up when there is room. A paused one only keeps its positions.

A state that changes where or what is delivered ends the course and begins a new one from the positions.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Final, NamedTuple

from confluent_kafka import KafkaException

from runtime.condition import Condition
from runtime.lanes import Place
from schemas.webhook import WebhookState, WebhookStatus
from webhooks.course import Course, Event, Tools, event_of
from webhooks.positions import Positions, since_of
from webhooks.registry import Webhook

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0

Reached = Callable[[Place], int | None]
"""The offset that the shared consumer reads next in an owned partition."""

Start = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


class _Halt(NamedTuple):
    """Why this process delivers nothing more of a webhook, as it stands at this version."""

    reason: str
    version: int


class Subscriber:
    """On one event loop. ``share``: bytes that it may hold. ``start``: runs a task of the role."""

    def __init__(
        self,
        webhook: Webhook,
        tools: Tools,
        positions: Positions,
        *,
        reached: Reached,
        share: Callable[[], int],
        start: Start,
    ) -> None:
        self.webhook = webhook
        self._tools = tools
        self._positions = positions
        self._reached = reached
        self._share = share
        self._start = start
        self._owned: dict[Place, object] = {}
        """Each partition with a token of the time for which it is owned."""
        self._asked: set[Place] = set()
        """Partitions whose positions are known or asked for."""
        self._keeping = asyncio.Lock()
        self._at: dict[Place, int] = {}
        """Committed positions of the partitions that are owned."""
        self._next: dict[Place, int] = {}
        """Of each partition of the course, the offset that it takes next."""
        self._in_step: set[Place] = set()
        self._course: Course | None = None
        self._reading: asyncio.Task[None] | None = None
        self._halted: _Halt | None = None
        self._era = 0
        """Counts what makes work that was begun before pointless."""
        self._wake = asyncio.Event()
        self._condition = Condition(f"webhook {webhook.id}")

    @property
    def topics(self) -> set[str]:
        """What it follows."""
        return set(since_of(self._tools.settings, self.webhook))

    def own(self, places: Iterable[Place]) -> None:
        """These partitions are this process' from now on."""
        self._owned |= {place: object() for place in places}
        self._begin()

    def drop(self, places: Iterable[Place]) -> None:
        """They are another's."""
        places = set(places)
        self._in_step -= places
        self._asked -= places
        for place in places:
            self._owned.pop(place, None)
            self._at.pop(place, None)
            self._next.pop(place, None)
        if self._course is not None:
            self._course.drop(places)
        self._wake.set()  # there may be room now

    def update(self, webhook: Webhook) -> None:
        """The next state."""
        before, self.webhook = self.webhook, webhook
        if self._halted is not None or _course(before.state) != _course(webhook.state):
            self._halted = None
            self._run(self._renew())

    def stop(self) -> None:
        """Deliver nothing more."""
        self._era += 1
        self._end_course()
        self._wake.set()

    def offer(self, event: Event) -> None:
        """The next event of the shared consumer; taken if this is what comes next here."""
        if self._course is not None and event.source.offset >= self._next[event.place]:
            self._take(self._course, event)

    def is_in_step(self, place: Place) -> bool:
        """True if what the shared consumer reads of a partition comes next here."""
        return place in self._in_step

    async def keep(self, *, all_of_it: bool = False) -> bool:
        """Commit how far it is; ``all_of_it``: also what has not changed, so that it does not expire.
        Return True if there was something to commit.
        """
        async with self._keeping:  # one that is overtaken would take positions back
            course = self._course
            due = {} if course is None else course.due()
            wanted = {**self._at, **due} if all_of_it else due
            if not wanted:
                return False
            if course is not None:
                course.delivered = False
            if await self._positions.keep(self.webhook, wanted):
                self._at |= {place: at for place, at in due.items() if place in self._owned}
                if course is not None:
                    course.committed(due)
            return True

    @property
    def has_delivered(self) -> bool:
        """True if a crash would repeat something that was sent since the last ``keep``."""
        return self._course is not None and self._course.delivered

    # What follows from the state

    async def _renew(self) -> None:
        """A new course, from what the old one has reached."""
        self._era += 1
        era = self._era
        await self.keep()
        if era != self._era:  # a newer state does it
            return
        self._end_course()
        self._at.clear()
        self._asked.clear()
        self._begin()

    def _end_course(self) -> None:
        if self._course is not None:
            self._course.drop_all()
        if self._reading is not None:
            self._reading.cancel()  # it may have long to wait for its turn
        self._course = self._reading = None
        self._in_step.clear()
        self._next.clear()

    def _begin(self) -> None:
        topics = self.topics
        new = [place for place in self._owned if place[0] in topics and place not in self._asked]
        if new:
            self._asked.update(new)
            self._run(self._learn(new, self._era))

    async def _learn(self, places: list[Place], era: int) -> None:
        """Where it stands in these partitions."""
        tokens = {place: self._owned[place] for place in places if place in self._owned}
        while era == self._era:
            try:
                found = await self._positions.begin(self.webhook, places)
                break
            except KafkaException as fault:
                self._condition.broken(fault)
                await asyncio.sleep(RETRY_S)
        else:
            return
        self._condition.whole()
        found = {
            place: at
            for place, at in found.items()
            if place in tokens and self._owned.get(place) is tokens[place]
        }
        if era != self._era or not found:
            return
        self._at |= found
        logger.info("webhook %s: assigned: %s", self.webhook.id, sorted(found))
        if self.webhook.state.status is not WebhookStatus.ACTIVE or self._halted is not None:
            return
        if self._course is None:
            self._course = self._new_course()
            self._reading = self._run(self._catch_up(self._course, era))
        self._course.own(found)
        self._next |= found
        self._wake.set()

    def _new_course(self) -> Course:
        return Course(self._tools, lambda: self.webhook, self._share, self._wake.set, self._halt)

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._start(self._alone(work))

    async def _alone(self, work: Coroutine[None, None, None]) -> None:
        """Let a bug in the work of this webhook pause this webhook, and end nobody else's. Raises
        KafkaException.
        """
        try:
            await work
        except KafkaException:
            raise
        except Exception as bug:
            logger.exception("bug in the work of webhook %s", self.webhook.id)
            self._halt(f"internal error: {bug!r}")

    def _halt(self, reason: str) -> None:
        if self._halted is None:
            self._halted = _Halt(reason, self.webhook.version)
            self._start(self._pause(self._halted))

    async def _pause(self, halt: _Halt) -> None:
        """Has it paused; what follows is up to its next state."""
        logger.warning("webhook %s is to be paused: %s", self.webhook.id, halt.reason)
        await self.keep()
        if self._halted is halt:
            self._era += 1
            self._end_course()
        await self._tools.reporter.pause(self.webhook.id, halt.reason, halt.version)

    # What it takes

    def _take(self, course: Course, event: Event) -> bool:
        """Returns False if there is no room; then it is behind."""
        place, offset = event.place, event.source.offset
        if course.full:
            self._in_step.discard(place)
            self._wake.set()
            return False
        course.take(event)
        self._next[place] = offset + 1
        return True

    async def _catch_up(self, course: Course, era: int) -> None:
        """Brings every partition of the course in step, again and again."""
        while era == self._era:
            behind = [place for place in self._next if self._is_behind(place)]
            if not behind or course.full:
                self._wake.clear()
                await self._wake.wait()
                continue
            for place in behind:
                await self._turn(course, era, place)

    def _is_behind(self, place: Place) -> bool:
        """True if there is something to read. What stands where the consumer is, is in step from now on."""
        reached = self._reached(place)
        if place in self._in_step or reached is None:
            return False
        if self._next[place] == reached:
            self._in_step.add(place)
            return False
        return True

    async def _turn(self, course: Course, era: int, place: Place) -> None:
        """One page of one partition."""
        at = self._next.get(place)
        if at is None or course.full:
            return
        try:
            page = await self._tools.behind.read(place, at)
        except KafkaException as fault:
            self._condition.broken(fault)
            await asyncio.sleep(RETRY_S)
            return
        self._condition.whole()
        if era != self._era or self._next.get(place) != at:
            return
        aggregate = self._tools.aggregates[place[0]]
        reached = self._reached(place)
        if reached is None:
            return
        for source in page.records:
            if source.offset >= reached:  # the shared consumer brings it
                self._next[place] = max(at, reached)
                break
            if not self._take(course, event_of(source, aggregate)):
                return
        else:
            self._next[place] = max(self._next[place], page.next)
        if self._next[place] >= reached:
            self._in_step.add(place)


def _course(state: WebhookState) -> tuple[object, ...]:
    """What cannot change while it is followed."""
    return state.status, state.url, state.since, state.skipped
