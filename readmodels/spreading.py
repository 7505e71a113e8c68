"""Fills a generation with several processes, each of them some of the partitions.

Nothing of a rebuild needs one process to see all partitions: an aggregate has one, its changes are applied in
Redis by scripts, and each partition has a position of its own. What does need it (comparing, and telling of
changes meanwhile) comes after the bulk, and is done by the process that rebuilds.

That one takes a share itself. If one of the others fails or is killed, all are ended; the generation is then
one that was left, and the next rebuild reads on in it. See `filling_process` for the other direction.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException

from readmodels import standing
from readmodels.filling import STALLED_S, Filling, Progress
from readmodels.generations import RebuildFailed
from readmodels.keys import Keys
from readmodels.positions import TopicPart
from readmodels.shares import KafkaFailed, Report, Share, divide
from readmodels.views import View
from runtime.settings import Settings

RECORDS_WORTH_A_PROCESS: Final = 50_000
"""A process costs about 0.6 s of a core before it reads its first record, nearly all of it for imports; in
that time one that is at work has read some 15,000. With less than this for each, it would be in the way."""

SILENT_S: Final = STALLED_S + 30.0
"""Longer than a process that makes no progress waits before it says so; it tells five times a second."""

END_WITHIN_S: Final = 5.0
LISTEN_S: Final = 0.1

OnProgress = Callable[[Progress], None]
_ROOT: Final = Path(__file__).resolve().parent.parent


class ProcessLost(RebuildFailed):
    """One of the processes of the rebuild was lost."""


def processes_for(left: Mapping[TopicPart, int], wanted: int | None) -> int:
    """How many processes to fill with. ``left``: offsets to read, by partition; ``wanted``: None for one a
    core, if there is enough to read. Never more than there are partitions with anything to read.
    """
    if wanted is not None:
        return max(1, min(wanted, len(left)))
    return max(1, min(cores(), len(left), sum(left.values()) // RECORDS_WORTH_A_PROCESS))


def cores() -> int:
    """Those that this process may use, where the system tells."""
    told = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1


def spread(
    settings: Settings,
    new: Mapping[View, Keys],
    filling: Filling,
    marks: Mapping[TopicPart, tuple[int, int]],
    *,
    wanted: int | None,
    on_progress: OnProgress,
) -> int:
    """Bring ``filling``, which has begun, to the ends in ``marks`` with several processes, if that is worth
    it. Returns how many there were; after 1, nothing has been read.

    Raises ProcessLost, and what filling raises, in whichever process.
    """
    targets = {part: high for part, (_, high) in marks.items()}
    left = filling.left(targets)
    count = processes_for(left, wanted)
    if count == 1:
        return 1
    mine, *others = divide(left, count)
    generations = {view.name: keys.generation for view, keys in new.items()}

    def share(parts: Sequence[TopicPart]) -> Share:
        starts = {part: marks[part][0] for part in parts}
        goals = {part: targets[part] for part in parts}
        return Share(settings, generations, starts, goals, standing.code(), os.getpid())

    own = share(mine)
    with _Crew([share(parts) for parts in others]) as crew:

        def tell(progress: Progress) -> None:
            crew.listen(0)
            records = one.records + sum(report.records for report in crew.reports)
            done = progress.done + sum(report.done for report in crew.reports)
            rate = records / max(time.monotonic() - began, 1e-6)
            on_progress(Progress(done, sum(left.values()), rate))

        began = time.monotonic()
        with Filling(settings, new, filling.line, tell) as one:
            one.begin(own.starts)
            one.read_to(own.targets)
            while crew.working:
                crew.listen(LISTEN_S)
                tell(Progress(sum(left[part] for part in mine), 0, 0.0))
    filling.filled_by_others(
        targets,
        one.records + sum(report.records for report in crew.reports),
        one.unreadable + sum(report.unreadable for report in crew.reports),
    )
    return count


class _Member:
    """One process and what it said last."""

    def __init__(self, share: Share) -> None:
        self.report = Report()
        self.heard_at = time.monotonic()
        self.pipe: Connection[Any, Any]
        self.pipe, theirs = Pipe()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "readmodels.filling_process", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},  # this code, wherever it was imported from
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # which is for answers; errors go where this process' go
                pass_fds=[theirs.fileno()],
            )
        finally:
            theirs.close()
        with suppress(OSError):  # it is gone already; that is noticed where it is listened to
            self.pipe.send(share)

    def end(self) -> None:
        """It ends when the pipe closes."""
        self.pipe.close()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def lost(self) -> ProcessLost:
        """Of a process that closed its end of the pipe."""
        code = self.process.wait(END_WITHIN_S)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ProcessLost(
            f"a process of the rebuild ended by itself ({how}). What is filled stays: rebuild again, and it"
            " goes on from there."
        )


class _Crew:
    """The further processes. A context manager: none is left behind it."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = shares
        self._members: list[_Member] = []
        self._working: dict[Connection[Any, Any], _Member] = {}

    def __enter__(self) -> Self:
        try:
            for share in self._shares:
                self._members.append(_Member(share))
        except BaseException:
            self._end()
            raise
        self._working = {member.pipe: member for member in self._members}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def reports(self) -> list[Report]:
        """What each said last."""
        return [member.report for member in self._members]

    @property
    def working(self) -> bool:
        """Whether one of them has not ended its share."""
        return bool(self._working)

    def listen(self, seconds: float) -> None:
        """Take in what they have said; waits so long for a first word. Raises what one of them raised, and
        ProcessLost.
        """
        while self._working and (said := wait(list(self._working), seconds)):
            for pipe in said:
                self._hear(self._working[pipe])  # type: ignore[index]
            seconds = 0.0
        for member in self._working.values():
            if time.monotonic() - member.heard_at > SILENT_S:
                raise ProcessLost(f"a process of the rebuild has said nothing for {SILENT_S:g} s")

    def _hear(self, member: _Member) -> None:
        try:
            said = member.pipe.recv()
        except (EOFError, OSError):
            raise member.lost() from None
        match said:
            case Report():
                member.report = said
                member.heard_at = time.monotonic()
                if said.ended:
                    del self._working[member.pipe]
            case KafkaFailed():
                raise KafkaException(KafkaError(said.code, said.reason))
            case _:
                raise said

    def _end(self) -> None:
        for member in self._members:
            member.end()
