"""One webhook: follows the history of the aggregates it subscribes to, and delivers.

    history -> lane of the aggregate -> endpoint -> log of deliveries -> offset

It has a consumer group of its own, so where it stands is its own, too: a webhook that fails holds up
nobody else. When it is paused it stays a member of its group and reads nothing, so its offsets do not
expire (Kafka forgets those of a group that nobody is in) and it goes on where it stood.

A state that changes where or what is delivered ends the following and begins it anew from the committed
offsets; a new secret or another wildcard takes effect with the next attempt.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from runtime import kafka
from runtime.follower import Follower
from runtime.lanes import Lanes, Place
from runtime.records import IncomingRecord
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.webhook import DeliveryResult, WebhookState, WebhookStatus, wants
from webhooks.gate import Gate
from webhooks.message import Message, Unreadable, headers_of, message_of
from webhooks.policy import MOST_ATTEMPTS, Answer, Policy, Verdict, judge
from webhooks.posting import Poster
from webhooks.registry import Webhook, group_id
from webhooks.reporting import Reporter
from webhooks.starts import Since

logger = logging.getLogger(__name__)

MOST_HELD: Final = 5_000
"""Events from the first that is not delivered on. Beyond it nothing more is read until there are half as
many: so many a crash repeats at most, and so much memory a webhook takes.
"""


class Tools(msgspec.Struct, frozen=True):
    """What all webhooks of a process share."""

    settings: Settings
    policy: Policy
    poster: Poster
    reporter: Reporter
    chance: random.Random


class _Halt(NamedTuple):
    """Why this process delivers nothing more of a webhook, as it stands at this version."""

    reason: str
    version: int


class _SetAside(msgspec.Struct, frozen=True):
    source: IncomingRecord
    error: Unreadable


class _Delivering(Lanes[Message | _SetAside]):
    """A lane an aggregate."""

    def __init__(self, subscriber: "Subscriber", aggregates: dict[str, str]) -> None:
        super().__init__(self._carry_out)
        self._subscriber = subscriber
        self._aggregates = aggregates

    def take(self, source: IncomingRecord) -> None:
        """The next event of its partition."""
        place = source.topic, source.partition
        if not self.owns(place):
            return
        try:
            message = message_of(source, self._aggregates[source.topic])
        except Unreadable as error:
            key = b"/%d" % source.offset  # no order with anything: a lane of its own
            self.queue(place, source.offset, key, _SetAside(source, error))
            return
        if wants(self._subscriber.webhook.state.event_types, message.type):
            self.queue(place, source.offset, source.key or b"", message)
        else:
            self.pass_by(place, source.offset)

    async def _carry_out(self, work: Message | _SetAside, _: asyncio.Event) -> None:
        if isinstance(work, _SetAside):
            await self._subscriber.set_aside(work.source, work.error)
            return
        try:
            await self._subscriber.deliver(work)
        except Exception as bug:  # of ours: it must hold up nobody else's webhook
            logger.exception("bug while delivering %s", _named(work))
            await self._subscriber.halt(f"internal error at {_named(work)}: {bug!r}")


class _Staying(Lanes[None]):
    """A member of the group that does nothing."""

    def __init__(self) -> None:
        super().__init__(self._nothing)

    def take(self, source: IncomingRecord) -> None:
        """Leaves it to be read again."""

    def own(self, places: Iterable[Place]) -> None:
        """Owns nothing, so that nothing is due."""

    async def _nothing(self, _work: None, _superseded: asyncio.Event) -> None:
        raise AssertionError("nothing was queued")


class Subscriber:
    """``run`` until ``stop``, on one event loop; ``update`` when the webhook's state has changed."""

    def __init__(self, webhook: Webhook, tools: Tools) -> None:
        self.webhook = webhook
        self._tools = tools
        self._stopped = False
        self._anew = asyncio.Event()
        """Set when what is going on now has to end and begin again."""
        self._halted: _Halt | None = None

    def update(self, webhook: Webhook) -> None:
        """The next state."""
        before, self.webhook = self.webhook, webhook
        if self._halted is not None or _course(before.state) != _course(webhook.state):
            self._anew.set()

    def stop(self) -> None:
        """Lets ``run`` end, with what is delivered by then committed."""
        self._stopped = True
        self._anew.set()

    async def run(self) -> None:
        """Until stopped. Raises KafkaException."""
        while not self._stopped:
            self._anew.clear()
            self._halted = None
            if self.webhook.state.status is WebhookStatus.ACTIVE:
                halt = await self._follow()
                if halt is not None:
                    await self._pause(halt)
            else:
                await self._stay()

    async def _pause(self, halt: _Halt) -> None:
        """Has it paused, and waits until the state says something new."""
        logger.warning("webhook %s is to be paused: %s", self.webhook.id, halt.reason)
        await self._tools.reporter.pause(self.webhook.id, halt.reason, halt.version)
        if self.webhook.version == halt.version and not self._stopped:
            self._anew.clear()
            await self._stay()

    async def deliver(self, message: Message) -> None:
        """Returns when it is delivered or was to be skipped; not at all when the webhook has to halt."""
        tools, webhook_id = self._tools, self.webhook.id
        if message.is_among(self.webhook.state.skipped):
            result = DeliveryResult.SKIPPED
            await tools.reporter.passed_by(webhook_id, message, result, "as an operator asked")
            return
        for attempt in itertools.count(1):
            answer = await self._gate.call(lambda: post(tools.poster, self.webhook.state, message))
            await tools.reporter.attempt(webhook_id, message, attempt, answer, by_hand=False)
            verdict = judge(answer)
            if verdict is Verdict.DELIVERED:
                return
            if verdict is Verdict.STOP:
                await self.halt(f"{answer} at {_named(message)}")
            if max(attempt, self._gate.failures) >= MOST_ATTEMPTS:
                why = f"{MOST_ATTEMPTS} attempts failed, the last with {answer}"
                await self.halt(f"{why} at {_named(message)}")
            now = datetime.now(UTC)
            await asyncio.sleep(tools.policy.pause_s(attempt, tools.chance, answer, now))

    async def set_aside(self, source: IncomingRecord, error: Unreadable) -> None:
        """An event that nobody can read."""
        logger.error("%s-%d at %d: %s", source.topic, source.partition, source.offset, error)
        await self._tools.reporter.dead_letter(source, "unreadable", error)

    async def halt(self, reason: str) -> None:
        """Ends the following. Does not return: what is under way does not end, so its offsets stay."""
        if self._halted is None:
            self._halted = _Halt(reason, self.webhook.version)
            self._anew.set()
        await asyncio.Event().wait()

    async def _follow(self) -> _Halt | None:
        """Until there is something new; or why it cannot go on."""
        self._gate = Gate(self._tools.policy, self._tools.chance)
        topics = topics_of(self._tools.settings)
        aggregates = {topics.history(name): name for name in self.webhook.state.since}
        lanes = _Delivering(self, aggregates)
        await self._run(lanes, lambda full: lanes.held >= (MOST_HELD // 2 if full else MOST_HELD))
        return self._halted

    async def _stay(self) -> None:
        await self._run(_Staying(), lambda _: True)

    async def _run(self, work: _Delivering | _Staying, full: Callable[[bool], bool]) -> None:
        tools, webhook = self._tools, self.webhook
        topics = topics_of(tools.settings)
        since = {topics.history(name): at_ms for name, at_ms in webhook.state.since.items()}
        follower = Follower(
            f"webhook {webhook.id}",
            kafka.group_consumer(tools.settings, group_id(tools.settings, webhook.id)),
            list(since),
            work,
            full=full,
            starts=Since(tools.settings, since),
        )
        await follower.run(self._anew, tools.reporter.broken)


def _course(state: WebhookState) -> tuple[object, ...]:
    """What cannot change while it is followed."""
    return state.status, state.url, state.since, state.skipped


def _named(message: Message) -> str:
    return f"{message.type} {message.aggregate_id} v{message.version}"


async def post(poster: Poster, state: WebhookState, message: Message) -> Answer:
    """One attempt, with the address and the secrets of the moment."""
    headers = headers_of(message, state.secrets, datetime.now(UTC))
    return await poster.post(state.url, headers, message.body)
