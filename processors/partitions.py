"""The partitions a processor owns: their stores, their restore, and what a rebalance does to them.

The consumer calls ``on_assign``, ``on_revoke`` and ``on_lost`` inside of ``consume``, so never in
the middle of a decision; before a partition goes, ``before_release`` ends the transaction under way.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from processors import decided, erasure, evidence, starts
from processors.decided import Decided
from processors.decider import Decider
from processors.expiry import Expiry
from processors.restore import Restorer
from processors.state_store import Marker, PartitionCopy, PartitionState
from processors.transaction import NextOffsets
from runtime import kafka, topic_admin
from runtime.records import OutgoingRecord
from runtime.settings import Settings
from schemas.topics import PERSONAL

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 10.0
COMMITTED_TIMEOUT_S: Final = 3 * kafka.TRANSACTION_TIMEOUT_MS / 1000
"""Offsets in a dead processor's open transaction are only known when that has ended."""

Place = tuple[str, int]
"""Topic and number of a partition."""


class OffsetsLost(RuntimeError):
    """Commands were lost before they were decided, or may have been: a person has to say where to go on."""

    def __init__(self, found: Collection[str]) -> None:
        super().__init__(
            "; ".join(found)
            + ". `orderflow topics offsets` shows what is missing; with --accept-loss it lets "
            "the processors go on at what is left."
        )


class OwnedPartitions:
    """Everything a processor holds for each command partition assigned to it."""

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        directory: Path,
        new_decider: Callable[[str, int, PartitionState], Decider],
        *,
        before_release: Callable[[bool], None],
        marker: Marker | None = None,
    ) -> None:
        """``before_release`` is called with whether the partitions are lost already. ``marker``: as
        ``PartitionCopy``'s, for the states.
        """
        self._settings = settings
        self._topics = topic_admin.topics_of(settings)
        self._consumer = consumer
        self._directory = directory / settings.topic_prefix
        self._new_decider = new_decider
        self._before_release = before_release
        self._marker = marker
        self._restorer = Restorer(settings)
        self._expiry = Expiry(AdminClient(kafka.admin(settings)))
        self._stores: dict[Place, PartitionState] = {}
        self._deciders: dict[Place, Decider] = {}
        self._paused: dict[Place, TopicPartition] = {}
        """Those that wait for their state, and where each will be read from."""
        self._admin = AdminClient(kafka.admin(settings))
        self._topic_ids: dict[str, str] = {}
        self._committed: dict[Place, int | None] = {}
        """The group's offset, as it was when the partition was assigned."""
        self._first: dict[Place, int] = {}
        """The first offset of the log, at that time."""
        self._doubted: set[Place] = set()
        """Those whose offset the consumer could not read from."""
        self._positions: dict[Place, int] = {}
        """Up to where each partition is decided and committed."""
        self._ends: dict[Place, int] = {}
        """Where a partition ended, when all before that had been read."""
        self._unnoted: set[Place] = set()
        self._abandoned = erasure.AbandonedCopies(directory)
        self._rolled_at_ms: dict[Place, int] = {}

    @property
    def restoring(self) -> bool:
        """Whether some partition waits for its state."""
        return bool(self._paused)

    def decider(self, place: Place) -> Decider:
        """Who decides the commands of a partition."""
        return self._deciders[place]

    def is_ready(self, place: Place) -> bool:
        """Whether commands of a partition may be decided: it is owned, and its state is known."""
        return place in self._deciders and place not in self._paused

    def on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """New partitions: opens their stores, starts their restore, and pauses them until it is done."""
        if not partitions:
            return
        starts = self._starts(partitions)
        consumer.incremental_assign(starts)
        places = [(p.topic, p.partition) for p in partitions]
        self._open(places)
        self._pause(starts)
        logger.info("assigned %s", _names(places))

    def on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Partitions that go to another processor, once all that was decided is committed."""
        self._before_release(False)
        self._release([(p.topic, p.partition) for p in partitions], "revoked")

    def on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Partitions that another one has already; what was decided on them is not committed."""
        self._before_release(True)
        self._release([(p.topic, p.partition) for p in partitions], "lost")

    def expire_step(self) -> None:
        """Let the inboxes forget a little of what their topics have forgotten."""
        if self._expiry.due():
            inboxes = {
                self._sources(place)[1]: store.inbox for place, store in self._stores.items()
            }
            self._expiry.step(inboxes)

    def restore_step(self) -> None:
        """Restores a little, and lets the partitions be consumed whose state is known."""
        if not self._paused:
            return
        if self._restorer.busy:
            self._restorer.step()
        ready = [place for place in self._paused if not self._is_restoring(place)]
        if ready:
            begins = self._begin(ready)
            assigned = [self._paused.pop(place) for place in ready]
            for place in ready:
                self._deciders[place].ready()
            self._read_on(begins, assigned)
            logger.info("ready %s", _names(ready))

    def due(self, now_ms: int) -> list[OutgoingRecord]:
        """What time has made due on the partitions that are ready; epoch milliseconds."""
        self._abandoned.remove_if_due({self._directory_of(place) for place in self._stores})
        ready = [place for place in self._deciders if place not in self._paused]
        return [
            record
            for place in ready
            for record in (*self._deciders[place].due(now_ms), *self._rolls(place, now_ms))
        ]

    def _rolls(self, place: Place, now_ms: int) -> Iterator[OutgoingRecord]:
        """Records that close the segments of an idle partition with people's data: they can be compacted."""
        topic, partition = place
        aggregate, store = self._aggregate(topic), self._stores[place]
        if aggregate not in PERSONAL:
            return
        for name, copy in (
            (self._topics.events(aggregate), store.states),
            (self._topics.parked(aggregate), store.parked),
        ):
            rolled_at_ms = self._rolled_at_ms.get((name, partition), 0)
            if erasure.needs_record(copy.written_at_ms, rolled_at_ms, now_ms):
                self._rolled_at_ms[name, partition] = now_ms
                yield OutgoingRecord(name, partition, erasure.ROLL_KEY, None, [])

    def seal(self) -> list[OutgoingRecord]:
        """A transaction begins: what is decided from now on belongs to the next one. Returns what the
        deciders have kept for its end.
        """
        return [record for decider in self._deciders.values() for record in decider.seal()]

    def reached(self, place: Place, end: int) -> None:
        """A partition has no readable record before this offset that was not handed over."""
        self._ends[place] = end

    @property
    def behind_end(self) -> bool:
        """True if some partition's offset is not where it ended: only transaction markers lie between."""
        return any(end > self._positions.get(place, end) for place, end in self._ends.items())

    def offsets(self, decided_to: NextOffsets) -> NextOffsets:
        """Complete the offsets of a transaction: with the ends that were reached, and with at least one.

        By its offsets the group's coordinator refuses the transaction of a processor that has lost its
        partitions. Where nothing was read, the position of an owned partition is committed again. Empty
        when no partition is ready: then nothing can be committed.
        """
        found = dict(decided_to)
        for place, end in self._ends.items():
            if end > max(found.get(place, 0), self._positions.get(place, end)):
                found[place] = end
        self._ends = {}
        if not found:
            ready = (place for place in self._positions if self.is_ready(place))
            found = {place: self._positions[place] for place in (next(ready, None),) if place}
        return found

    def committed(self, ends: NextOffsets, offsets: NextOffsets) -> None:
        """The sealed transaction stands: every decider keeps what it decided in it. ``ends``: of what was
        written; ``offsets``: up to where the commands are decided.
        """
        for (topic, partition), decider in self._deciders.items():
            aggregate = self._aggregate(topic)
            decider.committed(
                ends.get((self._topics.events(aggregate), partition)),
                ends.get((self._topics.outcomes(aggregate), partition)),
                ends.get((self._topics.parked(aggregate), partition)),
            )
        for place, offset in offsets.items():
            if place in self._stores:
                self._positions[place] = offset
                self._unnoted.add(place)

    def note(self) -> None:
        """Keep on the disk up to where the partitions are decided; see `processors.decided`."""
        for place in self._unnoted:
            note = Decided(self._topic_ids[place[0]], self._positions[place])
            decided.write(self._directory_of(place), note)
        self._unnoted = set()

    def rewind(self) -> None:
        """After a failed transaction: back to the committed offsets, and to the state of the
        topics.

        Whether the transaction stands may be unknown, so the stores read on from their checkpoints.
        """
        places = list(self._stores)
        if not places:
            return
        for decider in self._deciders.values():
            decider.discard()
        self._pause(self._starts([TopicPartition(*place) for place in places]))

    def doubt(self, place: Place) -> None:
        """The consumer cannot read on: whether something was lost is found out by ``rewind``."""
        self._doubted.add(place)

    def close(self) -> None:
        """Releases everything."""
        self._release(list(self._stores), "closed")
        self._restorer.close()

    def _open(self, places: list[Place]) -> None:
        aggregates = {self._aggregate(topic) for topic, _ in places}
        names = [
            name(aggregate)
            for aggregate in sorted(aggregates)
            for name in (
                self._topics.commands,
                self._topics.events,
                self._topics.outcomes,
                self._topics.parked,
            )
        ]
        ids = kafka.until_answered(
            lambda: topic_admin.topic_ids(self._settings, names), COMMITTED_TIMEOUT_S
        )
        self._topic_ids |= ids
        for topic, partition in places:
            aggregate = self._aggregate(topic)
            store = PartitionState(
                self._directory_of((topic, partition)),
                ids[self._topics.events(aggregate)],
                ids[self._topics.outcomes(aggregate)],
                ids[self._topics.parked(aggregate)],
                self._marker,
                personal=aggregate in PERSONAL,
            )
            self._stores[topic, partition] = store
            self._deciders[topic, partition] = self._new_decider(topic, partition, store)

    def _pause(self, starts: list[TopicPartition]) -> None:
        self._consumer.pause(starts)
        places = {(start.topic, start.partition): start for start in starts}
        self._paused |= places
        copies: dict[Place, PartitionCopy] = {}
        for place in places:
            store = self._stores[place]
            of_place = store.states, store.inbox, store.parked
            copies.update(zip(self._sources(place), of_place, strict=True))
        self._restorer.drop(list(copies))
        self._restorer.add(copies)

    def _read_on(self, begins: list[TopicPartition], assigned: list[TopicPartition]) -> None:
        """Lets paused partitions be consumed. Resuming alone does not wake the thread of the library that
        fetches, which sleeps for up to a second when all is paused; seeking does.
        """
        for begin, at in zip(begins, assigned, strict=True):
            if begin.offset != at.offset:
                self._consumer.incremental_unassign([at])
                self._consumer.incremental_assign([begin])
        self._consumer.resume(begins)
        for begin in begins:
            try:
                self._consumer.seek(begin)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise
                # It was assigned a moment ago and has not begun: it will, there.

    def _release(self, places: list[Place], why: str) -> None:
        self.note()
        for place in places:
            self._restorer.drop(self._sources(place))
            self._paused.pop(place, None)
            self._positions.pop(place, None)
            self._ends.pop(place, None)
            self._doubted.discard(place)
            self._deciders.pop(place, None)
            store = self._stores.pop(place, None)
            if store is not None:
                store.close()
        if places:
            logger.info("%s %s", why, _names(places))

    def _starts(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where each may be read from while it is paused; ``_begin`` says where it is read from."""
        committed = kafka.until_answered(
            lambda: _without_errors(self._consumer.committed(partitions, CALL_TIMEOUT_S)),
            COMMITTED_TIMEOUT_S,
        )
        places = [(at.topic, at.partition) for at in committed]
        self._first |= kafka.first_offsets(self._admin, places, COMMITTED_TIMEOUT_S)
        for place, at in zip(places, committed, strict=True):
            self._committed[place] = at.offset if at.offset >= 0 else None
            at.offset = max(at.offset, self._first[place])
        return committed

    def _begin(self, ready: list[Place]) -> list[TopicPartition]:
        """Where the partitions are read from, now that their state is known. Raises OffsetsLost."""
        lost: list[str] = []
        found: list[TopicPartition] = []
        for place in ready:
            match self._start(place):
                case starts.Begin(offset):
                    self._positions[place] = offset
                    self._doubted.discard(place)
                    found.append(TopicPartition(*place, offset))
                case missing:
                    lost.append(starts.explain(f"{place[0]}-{place[1]}", missing))
        if lost:
            raise OffsetsLost(lost)
        return found

    def _start(self, place: Place) -> starts.Begin | starts.Lost:
        committed, first = self._committed[place], self._first[place]
        if committed is not None and committed >= first and place not in self._doubted:
            return starts.Begin(committed)
        known = evidence.gather(
            self._admin,
            place,
            self._topic_ids[place[0]],
            committed=committed,
            note=decided.read(self._directory_of(place)),
            # Asked of the restored state and not of the topics' ends: these count what a dead processor
            # wrote in a transaction that was never committed.
            anything_decided=not self._stores[place].empty,
        )
        return starts.start(known)

    def _directory_of(self, place: Place) -> Path:
        topic, partition = place
        return self._directory / f"{self._aggregate(topic)}-{partition}"

    def _is_restoring(self, place: Place) -> bool:
        return any(self._restorer.is_restoring(*source) for source in self._sources(place))

    def _sources(self, place: Place) -> list[Place]:
        """Where the copies of a command partition come from: events, outcomes, what is parked."""
        topic, partition = place
        aggregate = self._aggregate(topic)
        return [
            (self._topics.events(aggregate), partition),
            (self._topics.outcomes(aggregate), partition),
            (self._topics.parked(aggregate), partition),
        ]

    def _aggregate(self, commands_topic: str) -> str:
        return commands_topic.split(".")[-2]


def _without_errors(answers: list[TopicPartition]) -> list[TopicPartition]:
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers


def _names(places: list[Place]) -> str:
    return ", ".join(f"{topic}-{partition}" for topic, partition in sorted(places))
