"""Judges commands of one partition on what is committed plus what was decided since: which records follow
from a command whose turn it is. Whose turn it is, is `processors.decider`'s matter.

For each command: its events (with state on ``events``, without on ``history``), its outcome, and the reply
if somebody waits. The invariant: what raises has changed nothing, so whoever calls may do something else
with the command.
"""

from typing import Any

import msgspec

from commands.aggregate import Aggregate, Command, Event, Loaded, version_conflict
from processors.edge import Edge, Request, Unanswerable
from processors.outbox import STAGE, Occurrence, Outbox, marks_of
from processors.state_store import State
from runtime.records import Headers, IncomingRecord, OutgoingRecord
from schemas.ids import outcome_key, part_key
from schemas.letters import Failure
from schemas.personal import NewKey, forgets, key_in, new_key, personal_fields
from schemas.records import decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import PERSONAL, Topics
from schemas.upcasting import StateReader


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
    """What one transaction decides, until it is committed. ``states``, ``outcomes`` and ``parked`` as the
    store has them; ``known`` are the states decoded, also of what was only looked up.
    """

    known: dict[bytes, Known] = {}
    states: dict[bytes, bytes | None] = {}
    outcomes: dict[bytes, bytes] = {}
    parked: dict[bytes, bytes | None] = {}


class Draft(msgspec.Struct):
    """What one command is about to change. It counts when all of it could be written."""

    records: list[OutgoingRecord] = []
    known: dict[bytes, Known] = {}
    states: dict[bytes, bytes | None] = {}
    last: tuple[Event, Occurrence, Any] | None = None
    """Of a state that is written once a transaction: the newest."""

    def put(self, record: OutgoingRecord, known: Known) -> None:
        """A record of the events topic, and what its key stands at with it."""
        key = record.key or b""
        self.records.append(record)
        self.known[key] = known
        self.states[key] = record.value


_NOTHING = Known(0, None)


def failed(rejection: Rejection) -> Failure:
    """A refusal that nobody can be told, for the dead letters."""
    return Failure(rejection.code, rejection.message, STAGE)


class Judge:
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

    def _first_outcome(self, key: bytes) -> bytes | None:
        """The outcome of this command id, if it has one already."""
        return (
            self._open.outcomes.get(key)
            or self._sealed.outcomes.get(key)
            or self._store.inbox.get(key)
        )

    def _case(self, incoming: IncomingRecord) -> Case | Unanswerable:
        """What a record asks for."""
        request = self._edge.read(incoming.key, incoming.value, incoming.partition)
        if isinstance(request, Unanswerable):
            return request
        return Case(
            request,
            incoming,
            incoming.key or b"",
            outcome_key(request.aggregate_id, request.command_id),
            marks_of(request, incoming.headers),
        )

    def _answer(self, case: Case) -> list[OutgoingRecord]:
        """The records that follow from a command whose turn it is. Raises UnsupportedVersion where a newer
        release has written the state, and whatever a handler's bug raises.
        """
        first = self._first_outcome(case.outcome_key)
        if first is not None:
            return self._repeat(case, first)
        if case.request.rejection is not None:
            return self._conclude(case, case.request.rejection, 0)
        return self._judge(case)

    def _judge(self, case: Case) -> list[OutgoingRecord]:
        request, incoming = case.request, case.incoming
        root = self._load(case.key, self._roots)
        decision = self._steps(request, root, incoming.occurred_at_ms)
        if isinstance(decision, Rejection):
            return self._conclude(case, decision, root.version)
        draft = Draft()
        version = root.version
        for number, step in enumerate(decision):
            version += 1
            event_id = f"{request.command_id}:{number}"
            subject_key = self._subject_key(case, step.event, draft) if self._has_personal else None
            at = Occurrence(event_id, version, incoming.occurred_at_ms, case.marks, subject_key)
            self._write(case, step, at, draft)
        self._keep(case, draft)
        events = tuple(step.event for step in decision)
        draft.records += self._conclude(case, None, version, events)
        return draft.records

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

    def _write(self, case: Case, step: Step, at: Occurrence, draft: Draft) -> None:
        # Parts go first: whoever has read the root at this version has read its parts, too.
        for part, state in step.after.parts.items():
            if state is not step.before.parts.get(part):
                key = part_key(case.request.aggregate_id, part).encode()
                record = self._outbox.part(key, step.event, at, state)
                draft.put(record, Known(at.version, state))
        root = step.after.root
        full, bare = self._outbox.event(case.key, step.event, at, root)
        draft.put(full, Known(at.version, root, at.subject_key))
        draft.records.append(bare)

    def _subject_key(self, case: Case, event: Event, draft: Draft) -> bytes | None:
        """The aggregate's key from this event on. A new one is the only thing here that is not decided by
        the input; deciding again after a failed transaction makes another, and one of them is committed.
        """
        if forgets(type(event)):
            return None
        known = (draft.known.get(case.key) or self._load(case.key, self._roots)).subject_key
        if known is None and personal_fields(type(event)):
            return self._new_key(case.request.aggregate_id)
        return known

    def _keep(self, case: Case, draft: Draft) -> None:
        """All of the draft could be written: it counts."""
        self._open.known.update(draft.known)
        self._open.states.update(draft.states)

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
            self._outbox.dead_letter(incoming, failed(rejection)),
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
