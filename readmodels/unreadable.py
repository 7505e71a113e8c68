"""Say which key of Redis holds something that no projector wrote.

Redis is shared, restored from old files and edited manually, so nothing read from it is trusted. Imported by
`questions` and `positions` for what they read, and by `queries` for what the client library refuses to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from redis.exceptions import ResponseError

from readmodels.steps import AsyncRunner, Runner
from runtime.redis import Command, Reply
from schemas.decoding import DecodeError

T = TypeVar("T")


class ViewUnreadable(ValueError):
    """A key of the views holds something that no projector wrote. `orderflow rebuild` is the remedy."""

    def __init__(self, what: str, problem: object) -> None:
        super().__init__(f"Redis, {what}: {problem}")


def parsed(key: str, parse: Callable[[], T]) -> T:
    """Return what was read under a key. Raises ViewUnreadable, naming it."""
    try:
        return parse()
    except KeyError as missing:
        raise ViewUnreadable(f"key {key}", f"the field {missing} is missing") from missing
    except (ValueError, DecodeError) as error:
        raise ViewUnreadable(f"key {key}", error) from error


@contextmanager
def readable() -> Iterator[None]:
    """Raise ViewUnreadable where a key is of another type, or holds bytes that are no text."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ViewUnreadable("a key of the views", f"no UTF-8 text: {error.reason}") from error
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        raise ViewUnreadable("a key of the views", error) from error


class ReadableRunner:
    """A `Runner` whose replies are what a projector may have written. Raises ViewUnreadable where not."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Run one pipeline. Raises ViewUnreadable and what the runner raises."""
        with readable():
            return self._runner.run(commands)


class AsyncReadableRunner:
    """`ReadableRunner` for asyncio."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Run one pipeline. Raises ViewUnreadable and what the runner raises."""
        with readable():
            return await self._runner.run(commands)
