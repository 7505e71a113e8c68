"""Judges commands of one partition on what is committed plus what was decided since: which records follow
from a command whose turn it is. Whose turn it is, is `processors.decider`'s matter.

For each command: its events (with state on ``events``, without on ``history``), its outcome, and the reply
if somebody waits. Each command is decided into a draft. The invariant: what raises has changed nothing, so
whoever calls may do something else with the command.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from commands.aggregate import Aggregate, Event, Loaded, version_conflict
from processors.edge import Edge, Request, Unanswerable, unfit_headers
from processors.outbox import STAGE, Occurrence, Outbox, marks_of
from processors.state_store import State
from processors.unit_of_work import Case, Change, Draft, Known, Pending, Step
from runtime.records import IncomingRecord, OutgoingRecord
from schemas import limits
from schemas.decoding import DecodeError
from schemas.ids import new_scope, outcome_key, part_key
from schemas.letters import Failure
from schemas.personal import NewKey, forgets, key_in, new_key, personal_fields
from schemas.records import Outcome, decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import PERSONAL, Topics
from schemas.upcasting import StateReader


class _TooLarge(Exception):
    """A record of a decision does not fit."""


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
        self._recent_bytes = 0
        """Size of their records, more or less."""
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
        if self._aggregate.own_time and incoming.own_time_ms != incoming.occurred_at_ms:
            incoming = msgspec.structs.replace(incoming, occurred_at_ms=incoming.own_time_ms)
        key = incoming.key or b""
        sent = incoming.headers
        unfit = unfit_headers(incoming) if sent or incoming.unreadable else None
        request = self._edge.read(key, incoming.value, incoming.partition, unfit)
        if isinstance(request, Unanswerable):
            return request
        command_id = request.command_id.encode()
        marks = marks_of(command_id, [] if unfit else sent)
        return Case(request, incoming, key, outcome_key(key, command_id), marks)

    def _answer(self, case: Case) -> Draft:
        """What follows from a command whose turn it is. Raises msgspec.MsgspecError where its aggregate's
        state cannot be read, and whatever a handler's bug raises.
        """
        first = self._first_outcome(case.outcome_key)
        if first is not None:
            return self._repeat(case, first)
        if case.request.rejection is not None:
            return self._conclude(Draft(), case, case.request.rejection, 0)
        return self._judge(case)

    def _judge(self, case: Case) -> Draft:
        request, aggregate, at_ms = case.request, self._aggregate, case.incoming.occurred_at_ms
        root = self._load(case.key, self._roots)
        expected = request.expected_version
        if expected is not None and expected != root.version:
            conflict = version_conflict(aggregate.name, expected, root.version)
            return self._conclude(Draft(), case, conflict, root.version)
        loaded = Loaded(root.state, self._parts(request), request.aggregate_id, self._scope)
        events = aggregate.decide(loaded, request.command)
        if isinstance(events, Rejection):
            return self._conclude(Draft(), case, events, root.version)
        draft = Draft(subject_key=root.subject_key)
        version = root.version
        try:
            for number, event in enumerate(events):
                version += 1
                after = aggregate.evolve(loaded, event, at_ms)
                key = self._subject_key(event, request, draft) if self._has_personal else None
                event_id = f"{request.command_id}:{number}"
                at = Occurrence(event_id, version, at_ms, case.marks, key)
                self._write(case, Step(event, loaded, after, at), draft)
                loaded = after
        except _TooLarge as error:
            too_large = Rejection(Code.TOO_LARGE, str(error))
            return self._conclude(Draft(), case, too_large, root.version)
        return self._conclude(draft, case, None, version, events)

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
        self._require_fit(step.event, full.value)
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

    def _require_fit(self, event: Event, value: bytes | None) -> None:
        """Raise _TooLarge for an event that no topic takes."""
        size = len(value or b"")
        if size > limits.MAX_VALUE_BYTES:
            raise _TooLarge(
                f"{type(event).__name__} and the state after it would have {size} bytes; at most "
                f"{limits.MAX_VALUE_BYTES} can be written"
            )

    def _conclude(
        self,
        draft: Draft,
        case: Case,
        rejection: Rejection | None,
        version: int,
        events: tuple[Event, ...] = (),
    ) -> Draft:
        """Add a command's outcome to the draft, and tell it to those who wait. Returns the draft."""
        request, incoming, marks = case.request, case.incoming, case.marks
        outcome = self._outbox.outcome_value(request, rejection, version, incoming.occurred_at_ms)
        draft.outcomes[case.outcome_key] = outcome
        draft.records.append(self._outbox.outcome(case.outcome_key, outcome, marks))
        if incoming.headers:  # where somebody waits, they say so
            draft.records += self._outbox.reply(request, incoming, outcome, marks)
            draft.records += self._outbox.answer(request, rejection, events, marks)
        return draft

    def _repeat(self, case: Case, first: bytes) -> Draft:
        """The first outcome again, to whoever waits; the topic of outcomes has it already."""
        request, incoming = case.request, case.incoming
        try:
            outcome = decode_outcome(first)
        except DecodeError as error:
            return Draft(records=[self._unreadable_outcome(case, error)])
        if self._is_repetition(case, outcome):
            return Draft(
                records=[
                    *self._outbox.reply(request, incoming, first, case.marks),
                    *self._outbox.answer_again(request, incoming, outcome, case.marks),
                ]
            )
        first_type = limits.cut(outcome.type, limits.MAX_TYPE) or "command"
        rejection = Rejection(
            Code.COMMAND_ID_REUSED,
            f"command id {request.command_id} was used before for another {first_type}; "
            "give each command an id of its own",
            "command_id",
        )
        refused = self._outbox.outcome_value(
            request, rejection, outcome.version, incoming.occurred_at_ms
        )
        # The first outcome stays the outcome of this id, so the second command is kept as a dead
        # letter.
        return Draft(
            records=[
                self._outbox.dead_letter(incoming, failed(rejection)),
                *self._outbox.reply(request, incoming, refused, case.marks),
            ]
        )

    def _unreadable_outcome(self, case: Case, error: Exception) -> OutgoingRecord:
        """The dead letter of a command whose id has an outcome that a newer release wrote, or no release."""
        message = (
            f"the first outcome of command id {case.request.command_id} cannot be read: {error}"
        )
        failure = Failure(Code.INTERNAL_ERROR, message, STAGE, error)
        return self._outbox.dead_letter(case.incoming, failure)

    def _is_repetition(self, case: Case, first: Outcome) -> bool:
        """True if the command is the one that has this outcome, and not another one under its id."""
        if first.digest == case.request.digest:
            return True
        try:
            return first.digest == self._edge.former_digest(case.incoming.value or b"")
        except DecodeError:  # no command: it means its bytes, as it did before
            return False

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
                self._recent_bytes += len(value)
            self._open.known[key] = known
        return known
