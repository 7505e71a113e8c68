"""given(events).when(command).then(events): decisions of any aggregate, read as sentences.

Works on the aggregate that owns the command, and loads as the shell does: the root, and only those
parts that the command names. Every event happens a millisecond after the one before, from 1 on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from commands import by_command
from commands.aggregate import Aggregate, Command, Decision, Event, Loaded
from schemas.rejections import Code, Rejection


def aggregate_of(command: Command) -> Aggregate:
    """The aggregate that decides on the command."""
    return by_command[type(command).__name__]


def fold(
    aggregate: Aggregate, events: Iterable[Event], start: Loaded | None = None, at_ms: int = 1
) -> Loaded:
    """State after the events, the first of which happens at ``at_ms``."""
    state = start or Loaded()
    for moment, event in enumerate(events, at_ms):
        state = aggregate.evolve(state, event, moment)
    return state


def load(aggregate: Aggregate, state: Loaded, command: Command) -> Loaded:
    """What the shell hands to ``decide``: the root and the parts the command names."""
    return Loaded(state.root, {part: state.parts.get(part) for part in aggregate.parts_of(command)})


@dataclass(frozen=True)
class Decided:
    """What came of a command."""

    aggregate: Aggregate
    past: Sequence[Event]
    decision: Decision

    @property
    def state(self) -> Loaded:
        """Root and parts after the events that follow."""
        assert not isinstance(self.decision, Rejection), self.decision.message
        return fold(self.aggregate, [*self.past, *self.decision])

    def then(self, events: Sequence[Event]) -> "Decided":
        """Exactly these events follow."""
        assert self.decision == tuple(events)
        return self

    def then_rejected(self, code: Code, message: str, field: str | None = None) -> "Decided":
        """The command is refused, in these words."""
        assert self.decision == Rejection(code, message, field)
        return self

    def then_state(self, root: Event) -> "Decided":
        """The root stands so, after the events that follow."""
        assert self.state.root == root
        return self


@dataclass(frozen=True)
class Given:
    """What has happened before."""

    past: Sequence[Event]

    def when(self, command: Command) -> Decided:
        """Decides on the command."""
        aggregate = aggregate_of(command)
        loaded = load(aggregate, fold(aggregate, self.past), command)
        return Decided(aggregate, self.past, aggregate.decide(loaded, command))


def given(past: Sequence[Event]) -> Given:
    """An aggregate to which this has happened; with no event, it does not exist."""
    return Given(past)
