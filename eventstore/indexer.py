"""Keeps the index of positions up to date: by a role all the time, and by whoever reads and finds it behind.

Everyone reads committed records from where the index is, so what it says of one topic never has a gap.
Two at once do the same work twice and no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from redis.exceptions import RedisError, ResponseError

from eventstore import index
from eventstore.events import text_of
from eventstore.index import Entries, IndexKeys, Place, worker_key
from eventstore.progress import OnProgress, Watch
from readmodels import refusals
from readmodels.steps import drive
from runtime import kafka, watchdog
from runtime.condition import Condition
from runtime.records import IncomingRecord, incoming
from runtime.redis import is_cluster, new_line, pooled
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit, topic_ids, topics_of
from runtime.topic_watch import TopicWatch
from schemas import headers, topics
from schemas.decoding import Int64, decoder
from schemas.ids import MAX_ID_LENGTH, PART_SEPARATOR, is_id
from schemas.money import MAX_AMOUNT
from schemas.records import OutcomeStatus

logger = logging.getLogger(__name__)

BATCH: Final = 5_000
POLL_S: Final = 0.1
CALL_S: Final = 10.0
WORKER_LIFE_MS: Final = 3_000
WORKER_BEAT_S: Final = 1.0
RETRY_S: Final = 1.0
WORKER_PATIENCE_S: Final = 1.0
"""How long a reader leaves it to a living worker to index the last moment, before it does so itself."""


class Kind(Enum):
    """What stands on a topic."""

    HISTORY = auto()
    COMMANDS = auto()
    OUTCOMES = auto()
    DEAD_LETTERS = auto()
    AUDIT = auto()


At = tuple[str, int]
"""Topic and partition."""


class IndexStalled(RuntimeError):
    """The index did not reach the end of the topics and nothing moved for a minute: a transaction hangs open
    (`kafka-transactions.sh find-hanging`), or a broker is gone.
    """


class Source(NamedTuple):
    """One topic that is indexed. ``life_ms``: how long its records are kept, where they expire."""

    topic: str
    kind: Kind
    aggregate: str
    life_ms: Int64


class _Event(msgspec.Struct):
    type: str
    id: str
    version: Int64
    occurred_at_ms: Int64


class _Outcome(msgspec.Struct):
    status: str
    command_id: str
    decided_at_ms: Int64


class _Command(msgspec.Struct):
    command_id: str


_decode_event: Final = decoder(_Event)
_decode_outcome: Final = decoder(_Outcome)
_decode_command: Final = decoder(_Command)


def indexed_topics(settings: Settings) -> Iterator[tuple[str, Kind, str]]:
    """Topic, kind and aggregate of everything that is indexed."""
    named = topics_of(settings)
    for aggregate in topics.AGGREGATES:
        yield named.history(aggregate), Kind.HISTORY, aggregate
        yield named.commands(aggregate), Kind.COMMANDS, aggregate
        yield named.outcomes(aggregate), Kind.OUTCOMES, aggregate
    yield named.dead_letters, Kind.DEAD_LETTERS, ""
    yield named.audit, Kind.AUDIT, ""


class Indexer:
    """Not to be shared between threads. Raises TopicsMissing, KafkaException or RedisError when made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._worker_key = worker_key(settings.topic_prefix)
        self._reads = pooled(settings)
        self._line = new_line(settings)
        self._together = is_cluster(settings)
        self._admin = AdminClient(kafka.admin(settings))
        self._consumer: Consumer | None = None
        named = list(indexed_topics(settings))
        specs = {spec.name: spec for spec in topics_of(settings).specs()}
        self._ids = topic_ids(settings, [topic for topic, _, _ in named])
        self.sources = {
            topic: Source(topic, kind, aggregate, int(specs[topic].config.get("retention.ms", 0)))
            for topic, kind, aggregate in named
        }
        self.places: tuple[At, ...] = tuple(
            (topic, number) for topic in self.sources for number in range(specs[topic].partitions)
        )
        self._indexed: dict[At, int] = {}
        """How far the index is with what is being read."""
        self._missing: dict[At, int] = {}
        """How many records of a partition are gone."""
        self.keys = IndexKeys(settings.topic_prefix, "", together=self._together)
        self.numbers: dict[str, int] = {}
        """Topic → the number under which the index knows it."""

    def close(self) -> None:
        """Stops reading."""
        self._line.close()
        self._reads.close()
        if self._consumer is not None:
            self._consumer.close()

    def catch_up(
        self, places: Collection[At] | None = None, on_progress: OnProgress | None = None
    ) -> None:
        """Index these partitions (all) up to the high watermark that they have now.

        A worker that is at it is left to it for a second. Raises IndexStalled, KafkaException, RedisError.
        """
        wanted = self.places if places is None else tuple(places)
        targets = kafka.end_offsets(self._admin, wanted, CALL_S)
        patience = time.monotonic() + (WORKER_PATIENCE_S if self._worker_lives() else 0.0)
        while behind := self._behind(targets):
            if time.monotonic() >= patience:
                self._read_to(behind, on_progress)
                patience = 0.0
            else:
                time.sleep(0.005)

    def run(self, stopping: threading.Event) -> None:
        """Index what comes until told to stop; while Redis is away, wait.

        Raises KafkaException, TopicsRecreated.
        """
        assigned, beat_at = False, 0.0
        topics_watch, redis = TopicWatch(self._settings, self._ids), Condition("Redis")
        while not stopping.is_set():
            watchdog.beat()
            topics_watch.look()
            try:
                if not assigned:
                    self._assign(self.places)
                    assigned = True
                if time.monotonic() - beat_at > WORKER_BEAT_S:
                    beat_at = time.monotonic()
                    self._reads.run([("SET", self._worker_key, "1", "PX", WORKER_LIFE_MS)])
                self._step(POLL_S)
                redis.whole()
            except (RedisError, OSError) as fault:
                redis.broken(fault)
                assigned = False  # what was read but not written is read again
                stopping.wait(RETRY_S)

    # Reading.

    def _behind(self, targets: Mapping[At, int]) -> dict[At, int]:
        self._recognise()
        at = self._positions(targets)
        return {place: target for place, target in targets.items() if at.get(place, -1) < target}

    def _recognise(self) -> None:
        """Is it still the same index? Redis may have been emptied, or somebody began it anew."""
        prefix = self._settings.topic_prefix
        epoch = drive(self._reads, index.current_epoch(prefix))
        if epoch != self.keys.epoch:
            keys = IndexKeys(prefix, epoch, together=self._together)
            numbers = drive(self._reads, index.number(keys, list(self._ids.values())))
            self.numbers = {topic: numbers[topic_id] for topic, topic_id in self._ids.items()}
            self.keys = keys

    def _positions(self, places: Collection[At]) -> dict[At, int]:
        found = drive(self._reads, index.read_positions(self.keys))
        numbered = {at: (self.numbers[at[0]], at[1]) for at in places}
        return {at: found[place] for at, place in numbered.items() if place in found}

    def _worker_lives(self) -> bool:
        return bool(self._reads.run([("EXISTS", self._worker_key)])[0])

    def _read_to(self, targets: Mapping[At, int], on_progress: OnProgress | None) -> None:
        self._assign(targets)
        watch = Watch(self._sum(), sum(targets.values()), IndexStalled, on_progress)
        while any(self._indexed[at] < target for at, target in targets.items()):
            try:
                records = self._step(POLL_S)
            except RedisError:  # what came of it is unknown: on from where the index says it is
                records = 0
                self._assign(targets)
            watch.moved(self._sum(), records)
        watch.done()

    def _sum(self) -> int:
        return sum(self._indexed.values())

    def _assign(self, places: Collection[At]) -> None:
        """Read these from where the index is; from their first offset where it has nothing."""
        self._recognise()
        first = kafka.first_offsets(self._admin, places, CALL_S)
        self._missing |= first
        numbered = {(self.numbers[t], p): offset for (t, p), offset in first.items()}
        drive(self._reads, index.begin(self.keys, numbered))
        self._indexed = dict.fromkeys(places, 0) | self._positions(places)
        # What expired meanwhile is passed over; the next position covers it.
        starts = {at: max(offset, first[at]) for at, offset in self._indexed.items()}
        self._reading().assign([TopicPartition(*at, offset) for at, offset in starts.items()])

    def _reading(self) -> Consumer:
        """Its consumer, made when it is first needed: an index that is up to date needs none."""
        if self._consumer is None:
            self._consumer = kafka.new_reader(self._settings)
        return self._consumer

    def _step(self, wait_s: float) -> int:
        """Index what has come; how many records that were."""
        reached: dict[At, int] = {}
        records: list[IncomingRecord] = []
        for message in kafka.what_came(self._reading(), BATCH, wait_s):
            at, offset = _place(message)
            if at not in self._indexed or offset is None:
                continue
            if message.error() is None:
                records.append(incoming(message))
            reached[at] = offset
        covers = {at: offset for at, offset in reached.items() if offset > self._indexed[at]}
        if covers and not self._write(records, covers):
            logger.warning("Redis has lost part of the index: reading on from what it has")
            self._assign(list(self._indexed))
        return len(records)

    def _write(self, records: Sequence[IncomingRecord], covers: Mapping[At, int]) -> bool:
        moves = {
            (self.numbers[at[0]], at[1]): (self._indexed[at], offset)
            for at, offset in covers.items()
        }
        entries = self._entries(records)
        try:
            written = drive(self._line, index.write(self.keys, entries, moves))
        except ResponseError as refusal:
            self._require_content(refusal)
            self._write_smaller(records)
            written = drive(self._line, index.write(self.keys, Entries(self.keys), moves))
        if written:
            self._indexed |= covers
        return written

    def _entries(self, records: Iterable[IncomingRecord]) -> Entries:
        entries = Entries(self.keys)
        for record in records:
            source, number = self.sources[record.topic], self.numbers[record.topic]
            note(entries, source, number, record, self._missing[record.topic, record.partition])
        return entries

    def _write_smaller(self, records: Sequence[IncomingRecord]) -> None:
        """Write what Redis takes of these records; the one that it refuses is left out, and logged."""
        waiting = deque([records])
        while waiting:
            watchdog.beat()  # one batch may be thousands of questions
            some = waiting.popleft()
            try:
                drive(self._line, index.add(self._entries(some)))
            except ResponseError as refusal:
                self._require_content(refusal)
                if len(some) > 1:
                    middle = len(some) // 2
                    waiting.extendleft((some[middle:], some[:middle]))
                    continue
                self._give_up(some[0], refusal)

    def _give_up(self, record: IncomingRecord, refusal: ResponseError) -> None:
        place = f"{record.topic}-{record.partition}@{record.offset}"
        logger.error("%s cannot be indexed: Redis refuses it: %s", place, refusal)
        if self.sources[record.topic].kind is Kind.HISTORY:
            entries = Entries(self.keys)
            entries.aside(Place(self.numbers[record.topic], record.partition, record.offset))
            drive(self._line, index.add(entries))

    def _require_content(self, refusal: ResponseError) -> None:
        """Raise the refusal, or RedisError, unless it is for what was sent."""
        if not refusals.may_be_content(refusal):
            raise refusal
        drive(self._line, index.probe(self.keys))


def _place(message: Message) -> tuple[At, int | None]:
    """A message's partition, and where reading goes on after it; None where it does not say."""
    at = str(message.topic()), int(message.partition() or 0)
    error, offset = message.error(), int(message.offset() or 0)
    if error is None:
        return at, offset + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return at, offset
    if kafka.is_transient(error):
        return at, None
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise TopicsUnfit(
            f"{at[0]}-{at[1]}: the offset to read on from is gone: the topic was deleted and recreated, or "
            "its records have expired. Start the role again: it reads on from what there is"
        )
    raise KafkaException(error)


def note(
    entries: Entries, source: Source, number: int, record: IncomingRecord, missing: int = 0
) -> None:
    """Add what one record says; ``number`` is its topic's, ``missing``: see `Entries.event`. Never raises.

    What is no message of ours adds nothing: it is in the dead letters. On a history topic, where only
    processors write, it is put aside.
    """
    at = Place(number, record.partition, record.offset)
    correlation = _conversation(_header(record, headers.CORRELATION_ID))
    try:
        match source.kind:
            case Kind.HISTORY:
                if _note_event(entries, at, record, missing) and correlation:
                    entries.talk(at, correlation)
            case Kind.OUTCOMES:
                outcome = _decode_outcome(record.value or b"")
                talk = correlation or _conversation(outcome.command_id)
                if talk:
                    entries.recent(at, talk, source.life_ms)
                aggregate_id = (record.key or b"").decode().partition(PART_SEPARATOR)[0]
                if outcome.status == OutcomeStatus.REJECTED and is_id(aggregate_id):
                    at_ms = min(max(outcome.decided_at_ms, 0), MAX_AMOUNT)
                    entries.refused(at, aggregate_id, at_ms, source.life_ms)
            case Kind.COMMANDS:
                command = _decode_command(record.value or b"")
                talk = correlation or _conversation(command.command_id)
                if talk:
                    entries.recent(at, talk, source.life_ms)
            case Kind.DEAD_LETTERS | Kind.AUDIT:
                if correlation:
                    entries.talk(at, correlation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return


def is_event(record: IncomingRecord) -> bool:
    """True if a record of a history topic may be an event: its stream and a version that can be."""
    return _event_in(record) is not None


def _event_in(record: IncomingRecord) -> tuple[str, int] | None:
    """The id of its stream and the version of a record that may be an event."""
    try:
        version = _decode_event(record.value or b"").version
        stream_id = (record.key or b"").decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # An event of version n has n - 1 others of its stream before it.
    return (stream_id, version) if is_id(stream_id) and 1 <= version <= record.offset + 1 else None


def _note_event(entries: Entries, at: Place, record: IncomingRecord, missing: int) -> bool:
    """Note the event, or put the record aside. True if it may be an event."""
    found = _event_in(record)
    if found is not None:
        entries.event(at, *found, missing)
        return True
    place = f"{record.topic}-{record.partition}@{record.offset}"
    logger.warning("%s is no event of a stream: left out of the index", place)
    entries.aside(at)
    return False


def _conversation(text: str | None) -> str | None:
    """The id of a conversation, if it can be one: no command of ours carries a longer one."""
    return text if text and len(text) <= MAX_ID_LENGTH else None


def _header(record: IncomingRecord, name: str) -> str | None:
    for mark, value in record.headers:
        if mark == name:
            return text_of(value)
    return None
