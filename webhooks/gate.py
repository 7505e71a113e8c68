"""How an endpoint is treated that fails: one gate a webhook, through which every attempt goes.

While the endpoint answers, a bounded number of calls are under way at once. Once it has failed, everybody
waits out one pause together, then a single call tries it; its success opens the gate again. So a
thousand waiting events are no thousand attempts, and ``failures`` counts how often it failed in a row,
not how many calls were under way when it went down.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from webhooks.policy import Answer, Policy, Verdict, judge

MOST_CALLS: Final = 16
"""Calls to one endpoint at once, by one process."""


class Gate:
    """On one event loop."""

    def __init__(self, policy: Policy, chance: random.Random) -> None:
        self._policy = policy
        self._chance = chance
        self._now = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(MOST_CALLS)
        self._trying = asyncio.Lock()
        self._failed_at = 0.0
        self._opens_at = 0.0
        self.failures = 0
        """In a row, without a success between them."""

    async def call(self, post: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to a call, made when it is this one's turn."""
        async with self._slots:
            if self.failures:
                async with self._trying:
                    if self.failures:
                        await asyncio.sleep(max(0.0, self._opens_at - self._now()))
                        return await self._counted(post)
            return await self._counted(post)

    async def _counted(self, post: Callable[[], Awaitable[Answer]]) -> Answer:
        begun = self._now()
        answer = await post()
        if judge(answer) is Verdict.DELIVERED:
            self.failures = 0
        elif begun >= self._failed_at:  # not one of those that were under way when it failed
            self.failures += 1
            self._failed_at = self._now()
            pause_s = self._policy.pause_s(self.failures, self._chance, answer, datetime.now(UTC))
            self._opens_at = self._failed_at + pause_s
        return answer
