"""One event to its end: asks the gateway until it knows, sends what follows, or sets it aside.

The invariant: it returns when all that follows from the event is on the broker, and not before.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from typing import Final, Protocol, assert_never

import msgspec

from payments.gateway import (
    Charge,
    GatewayUnavailable,
    KeyReused,
    PaymentGateway,
    RequestRefused,
)
from payments.reaction import Followup, Refund, Task, after_charge, after_refund, react
from runtime.records import IncomingRecord
from runtime.sending import Unsendable
from schemas.ids import is_id
from schemas.records import decode_event
from schemas.upcasting import UnsupportedVersion

logger = logging.getLogger(__name__)

MOST_CALLS: Final = 256
"""Calls under way at once, over all payments; who waits for another try holds none."""

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 15.0
TELL_EVERY: Final = 5


class Unreadable(Exception):
    """A record that is no event of a payment, or one of a newer release; ``code`` says which."""

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


class Work(msgspec.Struct, frozen=True):
    """An event that the gateway has to be asked about."""

    source: IncomingRecord
    event_id: str
    task: Task

    @property
    def named(self) -> bool:
        """Return whether commands name the charge. Not where a processor of an older release wrote the event:
        it may still run, and would refuse a field that it does not know.
        """
        return self.task.key.encode() != self.source.key


def read(source: IncomingRecord) -> Work | None:
    """None where there is nothing to ask. Raises Unreadable."""
    try:
        payment_id = (source.key or b"").decode()
        event = decode_event(source.value or b"")
        if not is_id(payment_id):
            raise Unreadable("the record key is no payment id")
        task = react(payment_id, event)
    except UnsupportedVersion as error:
        raise Unreadable(str(error), "unsupported_schema_version") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    return None if task is None else Work(source, event.id, task)


def pauses(chance: random.Random) -> Iterator[float]:
    """Before each next try: doubling up to the longest, half of it by chance, so that those who failed
    together do not come again together.
    """
    longest = FIRST_PAUSE_S
    while True:
        yield longest * chance.uniform(0.5, 1)
        longest = min(2 * longest, LONGEST_PAUSE_S)


class Outgoing(Protocol):
    """Where commands and dead letters go; each call returns when the broker has it."""

    async def command(self, followup: Followup, event_id: str, source: IncomingRecord) -> None:
        """A command that follows from an event."""

    async def dead_letter(self, source: IncomingRecord, code: str, cause: Exception) -> None:
        """An event that cannot be followed."""


class Asker:
    """Shared by all lanes."""

    def __init__(self, gateway: PaymentGateway, sender: Outgoing) -> None:
        self._gateway = gateway
        self._sender = sender
        self._calls = asyncio.Semaphore(MOST_CALLS)
        self._chance = random.Random()

    async def carry_out(self, work: Work, superseded: asyncio.Event) -> None:
        """``superseded``: the payment's refund waits behind this; a charge is not tried again then."""
        try:
            followups = await self._ask_until_known(work, superseded)
        except (KeyReused, RequestRefused) as error:
            logger.error("payment %s: %s", work.task.key, error)
            await self._sender.dead_letter(work.source, error.code, error)
            return
        except Exception as bug:  # an adapter's bug must stop nobody else's payment
            logger.exception("bug while asking for payment %s", work.task.key)
            await self._sender.dead_letter(work.source, "internal_error", bug)
            return
        try:
            for followup in followups:  # in their order: a refund follows its capture
                await self._sender.command(followup, work.event_id, work.source)
        except Unsendable as refusal:
            logger.error("payment %s: %s", work.task.key, refusal)
            await self._sender.dead_letter(work.source, "too_large", refusal)

    async def set_aside(self, source: IncomingRecord, error: Unreadable) -> None:
        """An event that nobody can read."""
        logger.error("%s-%d at %d: %s", source.topic, source.partition, source.offset, error)
        await self._sender.dead_letter(source, error.code, error)

    async def _ask_until_known(self, work: Work, superseded: asyncio.Event) -> tuple[Followup, ...]:
        for tries, pause in enumerate(pauses(self._chance), 1):
            # The refund bars the key, so whatever became of this charge it finds out and undoes.
            if superseded.is_set():
                return ()
            try:
                async with self._calls:
                    return await self._ask(work)
            except GatewayUnavailable as fault:
                if tries % TELL_EVERY == 0:
                    logger.warning("payment %s, try %d: %s", work.task.key, tries, fault)
            await _pause(pause, superseded)
        raise AssertionError("pauses never end")

    async def _ask(self, work: Work) -> tuple[Followup, ...]:
        match work.task:
            case Charge() as charge:
                return after_charge(charge, await self._gateway.charge(charge), named=work.named)
            case Refund() as refund:
                answer = await self._gateway.refund(refund.key)
                return after_refund(refund, answer, named=work.named)
            case _:
                assert_never(work.task)


async def _pause(seconds: float, superseded: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await superseded.wait()
    except TimeoutError:
        pass
