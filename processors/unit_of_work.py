"""What one transaction decides, and what one command is about to add to it.

A command's records and changes are gathered in a ``Draft``, in which nothing counts. ``Pending.add`` makes
all of it count, and cannot fail. The invariant: whatever raises while a draft is made has changed nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from commands.aggregate import Event, Loaded
from processors.edge import Request
from processors.outbox import Occurrence
from runtime.records import Headers, IncomingRecord, OutgoingRecord


class Known(msgspec.Struct, frozen=True, gc=False):
    """An aggregate or a part as it stands: ``state`` is None and ``version`` 0 when it does not exist.
    ``subject_key``: what the personal fields of its events are sealed with, if it has any.
    """

    version: int
    state: Any
    subject_key: bytes | None = None


class Case(msgspec.Struct, frozen=True, gc=False):
    """A command that can be answered, and all that its answer needs."""

    request: Request
    incoming: IncomingRecord
    key: bytes
    outcome_key: bytes
    marks: Headers


class Step(msgspec.Struct, frozen=True, gc=False):
    """One event of a decision, with the state before and after it."""

    event: Event
    before: Loaded
    after: Loaded
    at: Occurrence


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a key of the events topic stands at after a decision. ``value``: its record, as the store will
    have it; None: deleted.
    """

    key: bytes
    known: Known
    value: bytes | None


class Draft(msgspec.Struct):
    """What one command is about to write and to change. ``outcomes`` and ``parked`` as ``Pending`` has them;
    ``then``: changes of what its decider remembers besides, which cannot fail.
    """

    records: list[OutgoingRecord] = []
    changes: list[Change] = []
    outcomes: dict[bytes, bytes] = {}
    parked: dict[bytes, bytes | None] = {}
    then: list[Callable[[], object]] = []
    subject_key: bytes | None = None
    """The aggregate's key, where one of the events so far has needed it."""

    last: tuple[OutgoingRecord, Step] | None = None
    """Of a state that is written once a transaction: the newest step, and its record of the history."""


class Pending(msgspec.Struct):
    """What one transaction decides, until it is committed. ``states``, ``outcomes`` and ``parked`` as the
    store has them; ``known`` are the states decoded, also of what was only looked up.
    """

    known: dict[bytes, Known] = {}
    states: dict[bytes, bytes | None] = {}
    outcomes: dict[bytes, bytes] = {}
    parked: dict[bytes, bytes | None] = {}

    def add(self, draft: Draft) -> list[OutgoingRecord]:
        """Make all of a draft count, and return its records."""
        for change in draft.changes:
            self.known[change.key] = change.known
            self.states[change.key] = change.value
        self.outcomes.update(draft.outcomes)
        if draft.parked:
            self.parked.update(draft.parked)
        for change_memory in draft.then:
            change_memory()
        return draft.records
