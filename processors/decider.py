"""Decides the commands of one partition, one after the other, on what is committed plus what this
transaction has decided before. Knows the store but no Kafka client.

For each command, in one transaction: its events (with state on ``events``, without on ``history``),
its outcome, and the reply if somebody waits. Nothing reaches the store before ``committed()``.
"""

import logging
from typing import Any

import msgspec

from commands.aggregate import Aggregate, Decision, Event, Loaded, version_conflict
from processors.edge import Edge, Request, Unanswerable
from processors.outbox import Occurrence, Outbox, marks_of
from processors.records import Headers, IncomingRecord, OutgoingRecord
from processors.state_store import PartitionState
from schemas.ids import outcome_key, part_key
from schemas.records import decode_outcome
from schemas.rejections import Code, Rejection
from schemas.topics import Topics

logger = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True):
    """An aggregate or a part as it stands: ``state`` is None and ``version`` 0 when it does not exist."""

    version: int
    state: Any


class Step(msgspec.Struct, frozen=True):
    """One event of a decision, with the state before and after it."""

    event: Event
    before: Loaded
    after: Loaded


_NOTHING = Known(0, None)


class Decider:
    """One partition of one aggregate."""

    def __init__(
        self, aggregate: Aggregate, topics: Topics, partition: int, store: PartitionState
    ) -> None:
        self._aggregate = aggregate
        self._store = store
        self._edge = Edge(aggregate, topics.partitions)
        self._outbox = Outbox(aggregate.name, topics, partition)
        self._root_decoder = _stored_decoder(aggregate.root_type)
        self._part_decoder = _stored_decoder(aggregate.part_type or aggregate.root_type)
        self._known: dict[bytes, Known] = {}
        self._state_changes: dict[bytes, bytes | None] = {}
        self._outcomes: dict[bytes, bytes] = {}

    def decide(self, incoming: IncomingRecord) -> list[OutgoingRecord]:
        """The records that follow from one command's record. Never raises for what came in."""
        request = self._edge.read(incoming.key, incoming.value, incoming.partition)
        if isinstance(request, Unanswerable):
            return [self._outbox.dead_letter(incoming, request.rejection)]
        marks = marks_of(request, incoming.headers)
        key = outcome_key(request.aggregate_id, request.command_id)
        first = self._outcomes.get(key) or self._store.inbox.get(key)
        if first is not None:
            return self._repeat(request, incoming, first, marks)
        if request.rejection is not None:
            return self._conclude(request, incoming, request.rejection, 0, marks)
        return self._judge(request, incoming, marks)

    def committed(self, next_events_offset: int | None, next_outcomes_offset: int | None) -> None:
        """The transaction stands: keeps what was decided. Offsets as ``PartitionCopy.write``'s."""
        if next_events_offset is not None:
            self._store.states.write(self._state_changes, next_events_offset)
        if next_outcomes_offset is not None:
            self._store.inbox.write(self._outcomes, next_outcomes_offset)
        self.discard()

    def discard(self) -> None:
        """The transaction does not stand: forgets what was decided."""
        self._known = {}
        self._state_changes = {}
        self._outcomes = {}

    def _judge(
        self, request: Request, incoming: IncomingRecord, marks: Headers
    ) -> list[OutgoingRecord]:
        root = self._load(request.aggregate_id.encode(), self._root_decoder)
        try:
            decision = self._steps(request, root, incoming.occurred_at_ms)
        except Exception as bug:  # whatever a handler's bug is, it must stop nobody else's command
            logger.exception("bug while deciding %s %s", request.type, request.command_id)
            rejection = Rejection(
                Code.INTERNAL_ERROR,
                "the command could not be judged; it stands in the dead letters",
            )
            letter = self._outbox.dead_letter(incoming, rejection, bug)
            return [letter, *self._conclude(request, incoming, rejection, root.version, marks)]
        if isinstance(decision, Rejection):
            return self._conclude(request, incoming, decision, root.version, marks)
        records: list[OutgoingRecord] = []
        version = root.version
        for number, step in enumerate(decision):
            version += 1
            event_id = f"{request.command_id}:{number}"
            at = Occurrence(event_id, version, incoming.occurred_at_ms, marks)
            records += self._write(request.aggregate_id, step, at)
        records += self._conclude(request, incoming, None, version, marks)
        return records

    def _steps(self, request: Request, root: Known, at_ms: int) -> list[Step] | Rejection:
        loaded, decision = self._decision(request, root)
        if isinstance(decision, Rejection):
            return decision
        steps = []
        for event in decision:
            after = self._aggregate.evolve(loaded, event, at_ms)
            steps.append(Step(event, loaded, after))
            loaded = after
        return steps

    def _decision(self, request: Request, root: Known) -> tuple[Loaded, Decision]:
        aggregate, command = self._aggregate, request.command
        parts = {
            part: self._load(
                part_key(request.aggregate_id, part).encode(), self._part_decoder
            ).state
            for part in aggregate.parts_of(command)
        }
        loaded = Loaded(root.state, parts)
        expected = request.expected_version
        if expected is not None and expected != root.version:
            return loaded, version_conflict(aggregate.name, expected, root.version)
        return loaded, aggregate.decide(loaded, command)

    def _write(self, aggregate_id: str, step: Step, at: Occurrence) -> list[OutgoingRecord]:
        records = []
        # Parts go first: whoever has read the root at this version has read its parts, too.
        for part, state in step.after.parts.items():
            if state is not step.before.parts.get(part):
                key = part_key(aggregate_id, part).encode()
                record = self._outbox.part(key, step.event, at, state)
                self._remember(key, record.value, Known(at.version, state))
                records.append(record)
        key, root = aggregate_id.encode(), step.after.root
        full, bare = self._outbox.event(key, step.event, at, root)
        self._remember(key, full.value, Known(at.version, root))
        records += (full, bare)
        return records

    def _conclude(
        self,
        request: Request,
        incoming: IncomingRecord,
        rejection: Rejection | None,
        version: int,
        marks: Headers,
    ) -> list[OutgoingRecord]:
        outcome = self._outbox.outcome_value(request, rejection, version, incoming.occurred_at_ms)
        key = outcome_key(request.aggregate_id, request.command_id)
        self._outcomes[key] = outcome
        return [
            self._outbox.outcome(key, outcome, marks),
            *self._outbox.replies(request, incoming, outcome, marks),
        ]

    def _repeat(
        self, request: Request, incoming: IncomingRecord, first: bytes, marks: Headers
    ) -> list[OutgoingRecord]:
        """The first outcome again, to whoever waits; the topic of outcomes has it already."""
        outcome = decode_outcome(first)
        if outcome.digest == request.digest:
            return self._outbox.replies(request, incoming, first, marks)
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
            *self._outbox.replies(request, incoming, refused, marks),
        ]

    def _load(self, key: bytes, decoder: msgspec.json.Decoder[Any]) -> Known:
        known = self._known.get(key)
        if known is None:
            value = self._store.states.get(key)
            if value is None:
                known = _NOTHING
            else:
                stored = decoder.decode(value)
                known = Known(stored.version, stored.state)
            self._known[key] = known
        return known

    def _remember(self, key: bytes, value: bytes | None, known: Known) -> None:
        self._known[key] = known
        self._state_changes[key] = value


def _stored_decoder(state_type: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    """Reads version and state of an event record and skips the rest."""
    stored = msgspec.defstruct("Stored", [("version", int), ("state", state_type)])
    return msgspec.json.Decoder(stored)
