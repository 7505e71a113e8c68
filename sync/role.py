"""Synchronisation by polling as a process: rounds over all views until it is told to stop, or one.

Redis or the target may be gone for any time: the same is tried again, after a pause that grows, and what
is wrong is told once. A slow target slows the reading: the next batch is read when this one is in.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from redis.exceptions import RedisError
from sqlalchemy import URL

from runtime.condition import Condition
from runtime.redis import is_cluster, new_line
from runtime.settings import Settings
from sync.cursor import OtherTopics, Wait
from sync.polling import Moved, OnProgress, Poller
from sync.rows import ROW_TYPES
from sync.target import Target, TargetAway, TargetUnfit, shown

logger = logging.getLogger(__name__)

REDIS_FAULTS: Final = (RedisError, OSError)
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
ONCE_WITHIN_S: Final = 60.0
"""How long `sync_once` waits without anything moving: for Redis, the target, or a view that fills."""


class SyncTimeout(TimeoutError):
    """Nothing moved for long; the message says what was waited for."""


class Sync:
    """A context manager: the connections of one synchronisation."""

    def __init__(
        self, settings: Settings, url: URL, on_progress: OnProgress, stop: threading.Event
    ) -> None:
        self.waiting: dict[str, str] = {}
        self.fault = ""
        self._stop = stop
        self._line = new_line(settings)
        self._target = Target(url, settings.topic_prefix)
        self._poller = Poller(
            settings.topic_prefix,
            self._line,
            self._target,
            on_progress,
            stop.is_set,
            spread=is_cluster(settings),
        )
        self._redis = Condition("Redis")
        self._sql = Condition(f"target {shown(url)}")
        self._prepared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()
        self._target.close()

    def turn(self) -> Mapping[str, Moved] | None:
        """A round of each view that is not waiting; None when Redis or the target was not there.

        Raises TargetUnfit.
        """
        moved: dict[str, Moved] = {}
        try:
            if not self._prepared:
                self._target.prepare()
                self._prepared = True
            for view in ROW_TYPES:
                if self._stop.is_set():
                    break
                self._round(view, moved)
        except REDIS_FAULTS as fault:
            self._broken(self._redis, fault)
            return None
        except TargetAway as fault:
            self._target.close()  # a server that takes nothing any more may have a successor
            self._broken(self._sql, fault)
            return None
        self.fault = ""
        self._redis.whole()
        self._sql.whole()
        return moved

    def _round(self, view: str, moved: dict[str, Moved]) -> None:
        try:
            answer = self._poller.round(view)
        except OtherTopics as error:
            remedy = (
                "its rows are of another history. Give it an empty database, which fills by itself"
            )
            raise TargetUnfit(
                f"{error}; the target was filled from the former: {remedy}"
            ) from error
        if isinstance(answer, Moved):
            self.waiting.pop(view, None)
            moved[view] = answer
        else:
            self._wait(view, answer)

    def _wait(self, view: str, wait: Wait) -> None:
        if view not in self.waiting:
            logger.warning("%s: waiting: %s", view, wait.why)
        self.waiting[view] = wait.why

    def _broken(self, condition: Condition, fault: Exception) -> None:
        self._poller.forget()
        self.fault = f"{type(fault).__name__}: {fault}".strip()
        condition.broken(fault)


def run_sync(
    settings: Settings,
    url: URL,
    interval_s: float,
    on_progress: OnProgress = lambda _: None,
) -> None:
    """Until SIGTERM or SIGINT. Call it from the main thread. Raises TargetUnfit."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logger.info("synchronising to %s", shown(url))
    with Sync(settings, url, on_progress, stop) as sync:
        pause = FIRST_PAUSE_S
        while not stop.is_set():
            moved = sync.turn()
            if moved is None:
                stop.wait(pause)
                pause = min(LONGEST_PAUSE_S, pause * 2)
                continue
            pause = FIRST_PAUSE_S
            if not any(one.more for one in moved.values()):
                stop.wait(interval_s)
    logger.info("stopped; the next run goes on from the last transaction")


def sync_once(
    settings: Settings,
    url: URL,
    on_progress: OnProgress = lambda _: None,
    within_s: float = ONCE_WITHIN_S,
) -> list[Moved]:
    """Until every view is in. Returns what was done of each. Raises TargetUnfit, SyncTimeout."""
    done = {view: Moved(view) for view in ROW_TYPES}
    moved_at = time.monotonic()
    with Sync(settings, url, on_progress, threading.Event()) as sync:
        while True:
            moved = sync.turn()
            for view, one in (moved or {}).items():
                done[view] = _sum(done[view], one)
            more = moved is not None and any(one.more for one in moved.values())
            if moved is not None and not more and not sync.waiting:
                return list(done.values())
            if more:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > within_s:
                raise SyncTimeout(_why(sync, within_s))
            else:
                time.sleep(FIRST_PAUSE_S)


def _why(sync: Sync, within_s: float) -> str:
    waits = [f"{view}: {why}" for view, why in sync.waiting.items()]
    return f"nothing moved for {within_s:g} s. {sync.fault or '; '.join(waits)}"


def _sum(one: Moved, two: Moved) -> Moved:
    return Moved(
        one.view,
        one.written + two.written,
        one.deleted + two.deleted,
        one.left_out + two.left_out,
        two.more,
        two.passed or one.passed,
    )
