"""Sends a plan through a client and compares each outcome with what the plan expects of it."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from orderflow.shop.planned import PlannedCommand
from runtime.client import CommandClient, CommandParked, CommandTooLarge, OutcomeTimeout
from schemas.records import Outcome
from schemas.rejections import Code

IN_FLIGHT: Final = 4_000
"""Commands whose outcomes are awaited at once: several transactions' worth, and bounded memory."""

SURPRISES_KEPT: Final = 20

Waiting = tuple[PlannedCommand, "Future[Outcome]"]
Name = tuple[str, str, str]  # aggregate, aggregate id, command id


@dataclass(frozen=True, slots=True)
class Surprise:
    """A command that ended in another way than the plan says. ``None`` stands for accepted."""

    command_id: str
    type: str
    expected: Code | None
    got: Code | None
    message: str | None

    def __str__(self) -> str:
        got = f"{self.got} ({self.message})" if self.got else "accepted"
        return f"{self.type} {self.command_id}: {got} instead of {self.expected or 'accepted'}"


@dataclass(slots=True)
class FeedReport:
    """How the plan went. ``rejected`` counts by code, the unanswerable with them."""

    sent: int = 0
    accepted: int = 0
    repeated: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    surprises: list[Surprise] = field(default_factory=list)
    surprised: int = 0

    @property
    def answered(self) -> int:
        """Commands that have their outcome."""
        return self.accepted + self.repeated + self.rejected.total()

    def count(self, command: PlannedCommand, code: Code | None, message: str | None) -> None:
        """One more outcome: the code of its rejection, or None for accepted."""
        if code is not None:
            self.rejected[code] += 1
        elif command.repeated:
            self.repeated += 1
        else:
            self.accepted += 1
        if code != command.expected:
            self.surprised += 1
            if len(self.surprises) < SURPRISES_KEPT:
                surprise = Surprise(
                    command.command_id, command.type, command.expected, code, message
                )
                self.surprises.append(surprise)


class Feeder:
    """Sends in the order of the plan and waits for outcomes in the same order, ``IN_FLIGHT`` behind."""

    def __init__(
        self,
        client: CommandClient,
        timeout: float = 60.0,
        on_progress: Callable[[FeedReport], None] | None = None,
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._on_progress = on_progress or (lambda _report: None)
        self._waiting: deque[Waiting] = deque()
        self._open: set[Name] = set()
        self._held: defaultdict[Name, deque[PlannedCommand]] = defaultdict(deque)
        self.report = FeedReport()

    def feed(self, commands: Iterable[PlannedCommand]) -> FeedReport:
        """Raises OutcomeTimeout when an outcome stays away, of which CommandParked is one, and NotDelivered
        when the broker does.
        """
        for command in commands:
            self.report.sent += 1
            self._send(command)
            if len(self._waiting) >= IN_FLIGHT:
                self._settle_one()
        while self._waiting:
            self._settle_one()
        self._client.flush(self._timeout)
        self._on_progress(self.report)
        return self.report

    def _send(self, command: PlannedCommand) -> None:
        outgoing = command.outgoing()
        if command.expected is Code.INVALID_KEY:
            # Nobody can be answered under a key that is no id: it goes to the dead letters.
            self._client.send(outgoing)
            self.report.count(command, Code.INVALID_KEY, None)
            return
        name = (command.aggregate, command.aggregate_id, command.command_id)
        if name in self._open:
            # What comes under the id again changes nothing whenever it comes, so it is held until the first
            # outcome is in, and nothing else has to wait.
            self._held[name].append(command)
            return
        try:
            future = self._client.submit(outgoing)
        except CommandTooLarge as refusal:
            self.report.count(command, Code.TOO_LARGE, str(refusal))
            return
        self._open.add(name)
        self._waiting.append((command, future))

    def _settle_one(self) -> None:
        command, future = self._waiting.popleft()
        try:
            outcome = future.result(self._timeout)
        except CommandParked:
            raise
        except TimeoutError:
            raise OutcomeTimeout(command.command_id, self._timeout) from None
        self.report.count(command, outcome.code, outcome.message)
        name = (command.aggregate, command.aggregate_id, command.command_id)
        self._open.discard(name)
        if name in self._held:
            again = self._held[name].popleft()
            if not self._held[name]:
                del self._held[name]
            self._send(again)
        if self.report.answered % 200 == 0:
            self._on_progress(self.report)
