"""Decides the commands of one partition, one after the other, on what is committed plus what was
decided since. Knows the store but no Kafka client.

For each command, in one transaction: its events (with state on ``events``, without on ``history``),
its outcome, and the reply if somebody waits. ``seal()`` is the border between two transactions;
nothing reaches the store before ``committed()``.
"""

import logging
from typing import Any

import msgspec

from commands.aggregate import Aggregate, Command, Event, Loaded, version_conflict
from processors.edge import Edge, Request, Unanswerable
from processors.outbox import Occurrence, Outbox, marks_of
from processors.state_store import State
from runtime.records import Headers, IncomingRecord, OutgoingRecord
from schemas.ids import outcome_key, part_key
from schemas.personal import NewKey, forgets, key_in, new_key, personal_fields
from schemas.records import decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import PERSONAL, Topics
from schemas.upcasting import StateReader, UnsupportedVersion

logger = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True, gc=False):
    """An aggregate or a part as it stands: ``state`` is None and ``version`` 0 when it does not exist.
    ``subject_key``: what the personal fields of its events are sealed with, if it has any.
    """

    version: int
    state: Any
    subject_key: bytes | None = None


class Step(msgspec.Struct, frozen=True, gc=False):
    """One event of a decision, with the state before and after it."""

    event: Event
    before: Loaded
    after: Loaded


class Case(msgspec.Struct, frozen=True, gc=False):
    """A command that can be answered, and all that its answer needs."""

    request: Request
    incoming: IncomingRecord
    key: bytes
    outcome_key: bytes
    marks: Headers


class Pending(msgspec.Struct):
    """What one transaction decides, until it is committed. ``states`` and ``outcomes`` as the store has
    them; ``known`` are the states decoded, also of what was only looked up.
    """

    known: dict[bytes, Known] = {}
    states: dict[bytes, bytes | None] = {}
    outcomes: dict[bytes, bytes] = {}


_NOTHING = Known(0, None)


class Decider:
    """One partition of one aggregate."""

    def __init__(
        self,
        aggregate: Aggregate,
        topics: Topics,
        partition: int,
        store: State,
        new_key: NewKey = new_key,
    ) -> None:
        self._aggregate = aggregate
        self._store = store
        self._new_key = new_key
        self._has_personal = aggregate.name in PERSONAL
        self._edge = Edge(aggregate, topics.partitions)
        self._outbox = Outbox(aggregate.name, topics, partition)
        self._roots: StateReader[Any] = StateReader(aggregate.root_type)
        self._part_states: StateReader[Any] = StateReader(
            aggregate.part_type or aggregate.root_type
        )
        self._open = Pending()
        self._sealed = Pending()

    def decide(self, incoming: IncomingRecord) -> list[OutgoingRecord]:
        """The records that follow from one command's record. Never raises for what came in; raises
        UnsupportedVersion where a newer release has written the state: a refusal would be for good.
        """
        request = self._edge.read(incoming.key, incoming.value, incoming.partition)
        if isinstance(request, Unanswerable):
            return [self._outbox.dead_letter(incoming, request.rejection)]
        case = Case(
            request,
            incoming,
            incoming.key or b"",
            outcome_key(request.aggregate_id, request.command_id),
            marks_of(request, incoming.headers),
        )
        first = self._first_outcome(case.outcome_key)
        if first is not None:
            return self._repeat(case, first)
        if request.rejection is not None:
            return self._conclude(case, request.rejection, 0)
        return self._judge(case)

    def ready(self) -> None:
        """The store is up to date with the topics, for the first time or again."""

    def due(self, now_ms: int) -> list[OutgoingRecord]:
        """What time has made due: here, nothing ever."""
        return []

    def seal(self) -> list[OutgoingRecord]:
        """What was decided so far is to be committed; what follows belongs to the next transaction.

        Returns what is only written at the end of a transaction: here, nothing.
        """
        self._sealed, self._open = self._open, Pending()
        return []

    def committed(self, next_events_offset: int | None, next_outcomes_offset: int | None) -> None:
        """The sealed transaction stands: keeps it. Offsets as ``PartitionCopy.write``'s."""
        if next_events_offset is not None:
            self._store.states.write(self._sealed.states, next_events_offset)
        if next_outcomes_offset is not None:
            self._store.inbox.write(self._sealed.outcomes, next_outcomes_offset)
        self._sealed = Pending()

    def discard(self) -> None:
        """Forgets everything that is not committed."""
        self._open = Pending()
        self._sealed = Pending()

    def _first_outcome(self, key: bytes) -> bytes | None:
        """The outcome of this command id, if it has one already."""
        return (
            self._open.outcomes.get(key)
            or self._sealed.outcomes.get(key)
            or self._store.inbox.get(key)
        )

    def _judge(self, case: Case) -> list[OutgoingRecord]:
        request, incoming = case.request, case.incoming
        root = self._load(case.key, self._roots)
        try:
            decision = self._steps(request, root, incoming.occurred_at_ms)
        except UnsupportedVersion:  # of a part's state; no bug of the handler
            raise
        except Exception as bug:  # whatever a handler's bug is, it must stop nobody else's command
            logger.exception("bug while deciding %s %s", request.type, request.command_id)
            rejection = Rejection(
                Code.INTERNAL_ERROR,
                "the command could not be judged; it stands in the dead letters",
            )
            letter = self._outbox.dead_letter(incoming, rejection, bug)
            return [letter, *self._conclude(case, rejection, root.version)]
        if isinstance(decision, Rejection):
            return self._conclude(case, decision, root.version)
        records: list[OutgoingRecord] = []
        version = root.version
        for number, step in enumerate(decision):
            version += 1
            event_id = f"{request.command_id}:{number}"
            subject_key = self._subject_key(case, step.event) if self._has_personal else None
            at = Occurrence(event_id, version, incoming.occurred_at_ms, case.marks, subject_key)
            records += self._write(case, step, at)
        events = tuple(step.event for step in decision)
        records += self._conclude(case, None, version, events)
        return records

    def _steps(self, request: Request, root: Known, at_ms: int) -> list[Step] | Rejection:
        aggregate, command = self._aggregate, request.command
        loaded = Loaded(root.state, {}, request.aggregate_id)
        if aggregate.part_type is not None:
            parts = self._parts(request.aggregate_id, command)
            loaded = Loaded(root.state, parts, request.aggregate_id)
        expected = request.expected_version
        if expected is not None and expected != root.version:
            return version_conflict(aggregate.name, expected, root.version)
        decision = aggregate.decide(loaded, command)
        if isinstance(decision, Rejection):
            return decision
        steps = []
        for event in decision:
            after = aggregate.evolve(loaded, event, at_ms)
            steps.append(Step(event, loaded, after))
            loaded = after
        return steps

    def _parts(self, aggregate_id: str, command: Command | None) -> dict[str, Any]:
        """The parts that the command touches, as they stand."""
        keys = {part: part_key(aggregate_id, part) for part in self._aggregate.parts_of(command)}
        return {
            part: self._load(key.encode(), self._part_states).state for part, key in keys.items()
        }

    def _write(self, case: Case, step: Step, at: Occurrence) -> list[OutgoingRecord]:
        records = []
        # Parts go first: whoever has read the root at this version has read its parts, too.
        for part, state in step.after.parts.items():
            if state is not step.before.parts.get(part):
                key = part_key(case.request.aggregate_id, part).encode()
                record = self._outbox.part(key, step.event, at, state)
                self._remember(key, record.value, Known(at.version, state))
                records.append(record)
        root = step.after.root
        full, bare = self._outbox.event(case.key, step.event, at, root)
        self._remember(case.key, full.value, Known(at.version, root, at.subject_key))
        records += (full, bare)
        return records

    def _subject_key(self, case: Case, event: Event) -> bytes | None:
        """The aggregate's key from this event on. A new one is the only thing here that is not decided by
        the input; deciding again after a failed transaction makes another, and one of them is committed.
        """
        if forgets(type(event)):
            return None
        known = self._load(case.key, self._roots).subject_key
        if known is None and personal_fields(type(event)):
            return self._new_key(case.request.aggregate_id)
        return known

    def _conclude(
        self,
        case: Case,
        rejection: Rejection | None,
        version: int,
        events: tuple[Event, ...] = (),
    ) -> list[OutgoingRecord]:
        request, incoming = case.request, case.incoming
        outcome = self._outbox.outcome_value(request, rejection, version, incoming.occurred_at_ms)
        self._open.outcomes[case.outcome_key] = outcome
        return [
            self._outbox.outcome(case.outcome_key, outcome, case.marks),
            *self._outbox.reply(request, incoming, outcome, case.marks),
            *self._outbox.answer(request, rejection, events, case.marks),
        ]

    def _repeat(self, case: Case, first: bytes) -> list[OutgoingRecord]:
        """The first outcome again, to whoever waits; the topic of outcomes has it already."""
        request, incoming = case.request, case.incoming
        outcome = decode_outcome(first)
        if outcome.digest == request.digest:
            return [
                *self._outbox.reply(request, incoming, first, case.marks),
                *self._outbox.answer_again(request, incoming, outcome, case.marks),
            ]
        rejection = Rejection(
            Code.COMMAND_ID_REUSED,
            f"command id {request.command_id} was used before for another "
            f"{outcome.type or 'command'}; give each command an id of its own",
            "command_id",
        )
        refused = self._outbox.outcome_value(
            request, rejection, outcome.version, incoming.occurred_at_ms
        )
        # The first outcome stays the outcome of this id, so the second command is kept as a dead
        # letter.
        return [
            self._outbox.dead_letter(incoming, rejection),
            *self._outbox.reply(request, incoming, refused, case.marks),
        ]

    def _load(self, key: bytes, reader: StateReader[Any]) -> Known:
        known = self._open.known.get(key) or self._sealed.known.get(key)
        if known is None:
            value = self._store.states.get(key)
            if value is None:
                known = _NOTHING
            else:
                known = Known(*reader.read(value), key_in(value) if self._has_personal else None)
            self._open.known[key] = known
        return known

    def _remember(self, key: bytes, value: bytes | None, known: Known) -> None:
        self._open.known[key] = known
        self._open.states[key] = value
