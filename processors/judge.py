"""Judges commands of one partition on what is committed plus what was decided since: which records follow
from a command whose turn it is. Whose turn it is, is `processors.decider`'s matter.

For each command: its events (with state on ``events``, without on ``history``), its outcome, and the reply
if somebody waits. The invariant: what raises has changed nothing, so whoever calls may do something else
with the command.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Event, Loaded, version_conflict
from processors.edge import Edge, Request, Unanswerable
from processors.outbox import STAGE, Occurrence, Outbox, marks_of
from processors.state_store import State
from runtime.records import Headers, IncomingRecord, OutgoingRecord
from schemas.ids import new_scope, outcome_key, part_key
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
    """What one command is about to write and to change. It counts when all of it could be written."""

    records: list[OutgoingRecord] = []
    changes: list[Change] = []
    subject_key: bytes | None = None
    """The aggregate's key, where one of the events so far has needed it."""

    last: tuple[OutgoingRecord, Step] | None = None
    """Of a state that is written once a transaction: the newest step, and its record of the history."""


_NOTHING: Final = Known(0, None)
_NO_PARTS: Final[Mapping[str, Any]] = {}


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
        *,
        scope: str | None = None,
    ) -> None:
        self._aggregate = aggregate
        # Drawn once and not once a command: it only has to differ from another pipeline's.
        self._scope = scope or new_scope()
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
        self._recent: dict[bytes, Known] = {}
        """Committed states that were asked for again after they had been stored, decoded: they are likely to
        be asked for once more."""
        self._found_states: dict[bytes, bytes | None] = {}
        self._found_outcomes: dict[bytes, bytes | None] = {}
        """What the store has under keys that the commands in hand ask for: see ``_look_up``."""

    def _first_outcome(self, key: bytes) -> bytes | None:
        """The outcome of this command id, if it has one already."""
        first = self._open.outcomes.get(key) or self._sealed.outcomes.get(key)
        if first is None:
            found = self._found_outcomes
            first = found[key] if key in found else self._store.inbox.get(key)
        return first

    def _look_up(self, cases: Sequence[Case]) -> None:
        """Asks the store at once for what many commands need of it. What is found counts until ``_forget``:
        meanwhile nothing is written to the store.
        """
        outcomes = [case.outcome_key for case in cases]
        self._found_outcomes = dict(
            zip(outcomes, self._store.inbox.get_many(outcomes), strict=True)
        )
        keys = {case.key for case in cases}
        for known in (self._open.known, self._sealed.known, self._recent):
            keys.difference_update(known)
        roots = list(keys)
        self._found_states = dict(zip(roots, self._store.states.get_many(roots), strict=True))

    def _forget(self) -> None:
        self._found_outcomes = {}
        self._found_states = {}

    def _case(self, incoming: IncomingRecord) -> Case | Unanswerable:
        """What a record asks for."""
        key = incoming.key or b""
        request = self._edge.read(key, incoming.value, incoming.partition)
        if isinstance(request, Unanswerable):
            return request
        command_id = request.command_id.encode()
        marks = marks_of(command_id, incoming.headers)
        return Case(request, incoming, key, outcome_key(key, command_id), marks)

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
        request, aggregate, at_ms = case.request, self._aggregate, case.incoming.occurred_at_ms
        root = self._load(case.key, self._roots)
        expected = request.expected_version
        if expected is not None and expected != root.version:
            conflict = version_conflict(aggregate.name, expected, root.version)
            return self._conclude(case, conflict, root.version)
        loaded = Loaded(root.state, self._parts(request), request.aggregate_id, self._scope)
        events = aggregate.decide(loaded, request.command)
        if isinstance(events, Rejection):
            return self._conclude(case, events, root.version)
        draft = Draft(subject_key=root.subject_key)
        version = root.version
        for number, event in enumerate(events):
            version += 1
            after = aggregate.evolve(loaded, event, at_ms)
            key = self._subject_key(event, request, draft) if self._has_personal else None
            event_id = f"{request.command_id}:{number}"
            at = Occurrence(event_id, version, at_ms, case.marks, key)
            self._write(case, Step(event, loaded, after, at), draft)
            loaded = after
        self._keep(case, draft)
        draft.records += self._conclude(case, None, version, events)
        return draft.records

    def _parts(self, request: Request) -> Mapping[str, Any]:
        """The parts that the command touches, as they stand."""
        if self._aggregate.part_type is None:
            return _NO_PARTS
        parts = self._aggregate.parts_of(request.command)
        keys = {part: part_key(request.aggregate_id, part).encode() for part in parts}
        return {part: self._load(key, self._part_states).state for part, key in keys.items()}

    def _write(self, case: Case, step: Step, draft: Draft) -> None:
        at, key, root = step.at, case.key, step.after.root
        if step.after.parts:
            self._write_parts(case, step, draft)
        full, bare = self._outbox.event(key, step.event, at, root)
        draft.records.append(full)
        draft.records.append(bare)
        known = Known(at.version, root, at.subject_key)
        draft.changes.append(Change(key, known, full.value))

    def _write_parts(self, case: Case, step: Step, draft: Draft) -> None:
        """Before the root: whoever has read the root at this version has read its parts, too."""
        before, at = step.before.parts, step.at
        for part, state in step.after.parts.items():
            if state is not before.get(part):
                key = part_key(case.request.aggregate_id, part).encode()
                record = self._outbox.part(key, step.event, at, state)
                draft.records.append(record)
                draft.changes.append(Change(key, Known(at.version, state), record.value))

    def _subject_key(self, event: Event, request: Request, draft: Draft) -> bytes | None:
        """The aggregate's key from this event on. A new one is the only thing here that is not decided by
        the input; deciding again after a failed transaction makes another, and one of them is committed.
        """
        kind = type(event)
        if forgets(kind):
            draft.subject_key = None
        elif draft.subject_key is None and personal_fields(kind):
            draft.subject_key = self._new_key(request.aggregate_id)
        return draft.subject_key

    def _keep(self, case: Case, draft: Draft) -> None:
        """All of the draft could be written: it counts."""
        pending = self._open
        for change in draft.changes:
            pending.known[change.key] = change.known
            pending.states[change.key] = change.value

    def _conclude(
        self,
        case: Case,
        rejection: Rejection | None,
        version: int,
        events: tuple[Event, ...] = (),
    ) -> list[OutgoingRecord]:
        request, incoming, marks = case.request, case.incoming, case.marks
        outcome = self._outbox.outcome_value(request, rejection, version, incoming.occurred_at_ms)
        self._open.outcomes[case.outcome_key] = outcome
        records = [self._outbox.outcome(case.outcome_key, outcome, marks)]
        if incoming.headers:  # where somebody waits, they say so
            records += self._outbox.reply(request, incoming, outcome, marks)
            records += self._outbox.answer(request, rejection, events, marks)
        return records

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
        known = self._open.known.get(key) or self._sealed.known.get(key) or self._recent.get(key)
        if known is None:
            found = self._found_states
            value = found[key] if key in found else self._store.states.get(key)
            if value is None:
                known = _NOTHING
            else:
                known = Known(*reader.read(value), key_in(value) if self._has_personal else None)
                self._recent[key] = known
            self._open.known[key] = known
        return known
