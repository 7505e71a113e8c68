"""One webhook while it delivers: takes events, and works them off in the order of their aggregates.

    history -> lane of the aggregate -> endpoint -> log of deliveries -> position

Memory is bounded in bytes. What waits here is counted, and beyond its share a webhook takes nothing more
until half of it has gone; then it is behind, and reads what it left out by itself (`webhooks.history`). A
large event is never held: its place is, and it is read again for each attempt, a few at a time in the
whole process.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from runtime.lanes import Lanes, Place
from runtime.records import IncomingRecord
from runtime.settings import Settings
from schemas.webhook import DeliveryResult, WebhookState, wants
from webhooks.catching_up import CatchingUp
from webhooks.gate import Gate
from webhooks.message import Message, Unreadable, message_of
from webhooks.policy import MOST_ATTEMPTS, Answer, Policy, Verdict, judge
from webhooks.posting import Poster, post
from webhooks.registry import Webhook
from webhooks.reporting import Reporter

logger = logging.getLogger(__name__)

MOST_HELD: Final = 5_000
"""Events from the first that is not delivered on. Beyond it nothing more is taken until there are half as
many: so many a crash repeats at most.
"""

HELD_BYTES: Final = 64 * 1024 * 1024
"""What all webhooks of a process hold together, each an equal share of it."""

LEAST_SHARE: Final = 128 * 1024

LARGE_BYTES: Final = 64 * 1024
"""From this size on, an event is not held but read again when it is sent."""

LARGE_AT_ONCE: Final = 4

OVERHEAD_BYTES: Final = 1_000
"""What an event that waits takes beside its bytes, about."""


def share_bytes(webhooks: int) -> int:
    """Return what one of so many webhooks may hold."""
    return max(LEAST_SHARE, HELD_BYTES // max(1, webhooks))


class Tools(msgspec.Struct, frozen=True):
    """What all webhooks of a process share."""

    settings: Settings
    policy: Policy
    poster: Poster
    reporter: Reporter
    chance: random.Random
    behind: CatchingUp
    large: asyncio.Semaphore
    aggregates: dict[str, str]
    """Topic of a history -> its aggregate."""


class Event(msgspec.Struct, frozen=True):
    """An event of the history, decoded once for all webhooks. ``message`` None: nobody can read it."""

    source: IncomingRecord
    aggregate: str
    message: Message | None
    error: Unreadable | None
    size: int

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.source.topic, self.source.partition


def event_of(source: IncomingRecord, aggregate: str) -> Event:
    """Decode a record; of a large one, keep the place alone."""
    message, error = None, None
    try:
        message = message_of(source, aggregate)
    except Unreadable as found:
        error = found
    except Exception as bug:  # whatever it is, the events behind it are delivered
        logger.exception(
            "%s-%d at %d cannot be read", source.topic, source.partition, source.offset
        )
        error = Unreadable(repr(bug))
    size = source.size + len(message.body if message else b"")
    if size > LARGE_BYTES:
        source = msgspec.structs.replace(source, value=None, headers=[])
        message = message and msgspec.structs.replace(message, body=b"", source=source)
        size = 0
    return Event(source, aggregate, message, error, size + OVERHEAD_BYTES)


class Course(Lanes[Event]):
    """A lane an aggregate, from the moment on when the webhook's state says so until it says otherwise.

    ``webhook`` answers with the newest state: secrets and wildcards take effect with the next attempt.
    ``on_room`` is called when there is room again, ``on_halt`` with why nothing more can be delivered.
    """

    def __init__(
        self,
        tools: Tools,
        webhook: Callable[[], Webhook],
        share: Callable[[], int],
        on_room: Callable[[], None],
        on_halt: Callable[[str], None],
    ) -> None:
        super().__init__(self._carry_out)
        self._tools = tools
        self._webhook = webhook
        self._share = share
        self._on_room = on_room
        self._on_halt = on_halt
        self._gate = Gate(tools.policy, tools.chance)
        self._was_full = False
        self.delivered = False
        """True if something was sent since this was set to False: a crash would repeat it."""

    @property
    def full(self) -> bool:
        """True if nothing more is to be taken."""
        divisor = 2 if self._was_full else 1
        self._was_full = (
            self.held_bytes >= self._share() // divisor or self.held >= MOST_HELD // divisor
        )
        return self._was_full

    def take(self, event: Event) -> None:
        """The next event of its partition, which is owned."""
        place, source = event.place, event.source
        state = self._webhook().state
        if event.message is not None and not wants(state.event_types, event.message.type):
            self.pass_by(place, source.offset)
            return
        # What nobody can read has no order with anything: a lane of its own.
        key = b"/%d" % source.offset if event.message is None else source.key or b""
        self.queue(place, source.offset, key, event, size=event.size)

    async def _carry_out(self, event: Event, _: asyncio.Event) -> None:
        try:
            if event.message is None:
                await self._set_aside(event)
            else:
                await self._deliver(event, event.message)
        except Exception as bug:  # of ours: it must hold up nobody else's webhook
            logger.exception("bug while delivering %s", _named(event))
            await self._halt(f"internal error at {_named(event)}: {bug!r}")
        self.delivered = True
        if self._was_full:
            asyncio.get_running_loop().call_soon(self._look_for_room)

    def _look_for_room(self) -> None:
        if not self.full:
            self._on_room()

    async def _deliver(self, event: Event, message: Message) -> None:
        """Return when it is delivered or was to be skipped; not at all when the webhook has to halt."""
        tools, webhook_id = self._tools, self._webhook().id
        if message.is_among(self._webhook().state.skipped):
            result = DeliveryResult.SKIPPED
            await tools.reporter.passed_by(webhook_id, message, result, "as an operator asked")
            return
        for attempt in itertools.count(1):
            answer = await self._gate.call(lambda: self._attempt(event, message))
            await tools.reporter.attempt(webhook_id, message, attempt, answer, by_hand=False)
            verdict = judge(answer)
            if verdict is Verdict.DELIVERED:
                return
            if verdict is Verdict.STOP:
                await self._halt(f"{answer} at {_named(event)}")
            if max(attempt, self._gate.failures) >= MOST_ATTEMPTS:
                why = f"{MOST_ATTEMPTS} attempts failed, the last with {answer}"
                await self._halt(f"{why} at {_named(event)}")
            now = datetime.now(UTC)
            await asyncio.sleep(tools.policy.pause_s(attempt, tools.chance, answer, now))

    async def _attempt(self, event: Event, message: Message) -> Answer:
        state = self._webhook().state
        if message.body:
            return await post(self._tools.poster, state, message)
        return await self._with_source(event, lambda source: self._post_large(state, event, source))

    async def _post_large(
        self, state: WebhookState, event: Event, source: IncomingRecord
    ) -> Answer:
        return await post(self._tools.poster, state, message_of(source, event.aggregate))

    async def _with_source(
        self, event: Event, call: Callable[[IncomingRecord], Awaitable[Answer]]
    ) -> Answer:
        async with self._tools.large:
            source = await self._tools.behind.record_at(event.place, event.source.offset)
            if source is None:
                return Answer(0, error="the event is not where it was in the history")
            return await call(source)

    async def _set_aside(self, event: Event) -> None:
        """An event that nobody can read."""
        source, error = event.source, event.error or Unreadable("no event")
        logger.error("%s-%d at %d: %s", source.topic, source.partition, source.offset, error)
        reporter = self._tools.reporter
        if source.value is not None or event.size > OVERHEAD_BYTES:
            await reporter.dead_letter(source, "unreadable", error)
            return
        async with self._tools.large:
            whole = await self._tools.behind.record_at(event.place, source.offset)
            await reporter.dead_letter(whole or source, "unreadable", error)

    async def _halt(self, reason: str) -> None:
        """Ends the following. Does not return: what is under way does not end, so its offsets stay."""
        self._on_halt(reason)
        await asyncio.Event().wait()


def _named(event: Event) -> str:
    message = event.message
    if message is None:
        return f"{event.source.topic} {event.source.partition}-{event.source.offset}"
    return f"{message.type} {message.aggregate_id} v{message.version}"
