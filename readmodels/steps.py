"""A conversation with Redis written once, held with or without asyncio.

A `Steps` is a generator: it yields the commands of one pipeline, is sent their replies, yields the
next, and returns its result. It does no I/O, so projector, rebuild and queries share it. `Pause`
instead of commands means: wait, then go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from redis.exceptions import NoScriptError

from readmodels.scripts import load_commands
from runtime.redis import Command, Reply


@dataclass(frozen=True, slots=True)
class Pause:
    """Go on after this time; the answer is an empty list."""

    seconds: float


T = TypeVar("T")
Request: TypeAlias = Sequence[Command] | Pause
Steps: TypeAlias = Generator[Request, list[Reply], T]


class Runner(Protocol):
    """Runs one pipeline; `runtime.redis.Line` is one, and so is what `runtime.redis.pooled` gives."""

    def run(self, commands: Sequence[Command]) -> list[Reply]: ...


class AsyncRunner(Protocol):
    """Runs one pipeline; `runtime.redis.AsyncLine` is one."""

    async def run(self, commands: Sequence[Command]) -> list[Reply]: ...


def drive(runner: Runner, steps: Steps[T]) -> T:
    """Hold the conversation. Raises RedisError at the first command that failed; nothing is retried."""
    replies: list[Reply] | None = None
    while True:
        try:
            request = next(steps) if replies is None else steps.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            replies = []
            continue
        try:
            replies = runner.run(request) if request else []
        except NoScriptError:
            runner.run(load_commands())
            replies = runner.run(request)


async def drive_async(runner: AsyncRunner, steps: Steps[T]) -> T:
    """`drive` for asyncio."""
    replies: list[Reply] | None = None
    while True:
        try:
            request = next(steps) if replies is None else steps.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
            replies = []
            continue
        try:
            replies = await runner.run(request) if request else []
        except NoScriptError:
            await runner.run(load_commands())
            replies = await runner.run(request)


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """A hash as Redis lists it: name, value, name, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
