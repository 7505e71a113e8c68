"""Forgets a user, and says what is left of them: where, and until when.

The processor makes the data unreadable (`schemas/personal.py`); this asks it to, waits until the views
follow, and looks for what it cannot reach.
"""

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore import EventStore, RecordedEvent
from eventstore.progress import OnProgress, Watch
from orderflow.lag import wait_for_views
from readmodels.erasing import erase_from_kept
from runtime import kafka
from runtime.client import CommandClient, OutgoingCommand
from runtime.records import IncomingRecord, incoming
from runtime.redis import Rewrite, new_line, rewrite_append_only
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas import headers
from schemas.ids import PART_SEPARATOR
from schemas.personal import FORGOTTEN, personal_fields
from schemas.records import Outcome, encode
from schemas.topics import ERASED_WITHIN_MS, LATEST_LOOK_MS, SEGMENT_DEFAULT_MS, TopicSpec
from schemas.user import EVENTS

USER: Final = "user"
BATCH: Final = 5_000
POLL_S: Final = 0.1
CALL_S: Final = 10.0

_personal: Final = {event.__name__: personal_fields(event) for event in EVENTS}


class DeadLettersStalled(RuntimeError):
    """The dead letters could not be read to their end: nothing moved for a minute."""


class Remainder(msgspec.Struct, frozen=True):
    """Something personal that is still somewhere. ``until_ms``: epoch milliseconds; None: until a person
    removes it.
    """

    where: str
    what: str
    until_ms: int | None


def forget_user(
    settings: Settings, user_id: str, by: str, reason: str, timeout_s: float
) -> Outcome:
    """Has the user forgotten, and waits until no view shows the profile; a rejection changes nothing.

    Repeating it changes nothing. Raises OutcomeTimeout, ViewsBehind (the user is forgotten all the same),
    KafkaException, RedisError.
    """
    data = encode({"by": by, "reason": reason})
    command = OutgoingCommand(USER, user_id, "ForgetUser", data, f"forget-{uuid.uuid4().hex}")
    with CommandClient(settings) as client:
        outcome = client.execute(command, timeout_s)
    if outcome.accepted:
        wait_for_views(settings, timeout_s)
    return outcome


def erase_from_redis(settings: Settings, user_id: str, timeout_s: float) -> tuple[Remainder, ...]:
    """Erase a forgotten user from what Redis keeps beside the live view; returns what could not be.

    Raises RedisError.
    """
    erase_from_kept(settings, user_id)
    with closing(new_line(settings)) as line:
        came = rewrite_append_only(line, timeout_s)
    if came in (Rewrite.DONE, Rewrite.NO_FILE):
        return ()
    return (Remainder("Redis: append-only file", _NOT_REWRITTEN[came], None),)


_NOT_REWRITTEN: Final = {
    Rewrite.RUNNING: "commands as they were written; it is being rewritten: repeat this to see it gone",
    Rewrite.REFUSED: "commands as they were written, until Redis rewrites it; it refuses BGREWRITEAOF",
}


def remains(
    settings: Settings, user_id: str, on_progress: OnProgress | None = None
) -> tuple[Remainder, ...]:
    """What is left of a user who is forgotten.

    Raises what the event store raises, DeadLettersStalled, KafkaException, RedisError.
    """
    with EventStore(settings) as store:
        events = store.get_stream(f"{USER}/{user_id}")
    return (
        *_expiring(settings, events[-1].recorded_at_ms),
        *_in_the_clear(settings, events),
        *_dead_letters(settings, user_id, on_progress),
    )


def _expiring(settings: Settings, forgotten_at_ms: int) -> Iterator[Remainder]:
    """What goes by itself, after ``forgotten_at_ms``: when that was recorded, whatever time the command says.
    All else was written before.
    """
    topics = topics_of(settings)
    specs = {spec.name: spec for spec in topics.specs()}
    commands = topics.commands(USER)
    gone_ms = forgotten_at_ms + expires_within_ms(specs[commands])
    yield Remainder(commands, "commands as they were sent", gone_ms)
    compacted_ms = forgotten_at_ms + ERASED_WITHIN_MS + LATEST_LOOK_MS
    for topic, what in (
        (topics.events(USER), "replaced records, until the topic is cleaned"),
        (topics.parked(USER), "commands that have waited, until the topic is cleaned"),
    ):
        yield Remainder(topic, what, compacted_ms)
    yield Remainder(
        "ORDERFLOW_HOME of processors",
        "local copies of partitions that went to another processor",
        compacted_ms,
    )


def expires_within_ms(spec: TopicSpec) -> int:
    """How long a record of a topic with retention may stay. Kafka deletes whole segments, by the newest
    record in them, and looks every few minutes.
    """
    segment_ms = int(spec.config.get("segment.ms", SEGMENT_DEFAULT_MS))
    return int(spec.config["retention.ms"]) + segment_ms + LATEST_LOOK_MS


def _in_the_clear(settings: Settings, events: tuple[RecordedEvent, ...]) -> Iterator[Remainder]:
    """Events of a release that did not seal."""
    for event in events:
        told = [event.json.get(name) for name in _personal.get(event.type, ())]
        if any(value not in (None, FORGOTTEN) for value in told):
            where = f"{topics_of(settings).history(USER)}-{event.partition}@{event.offset}"
            yield Remainder(where, f"{event.type}, written before events were sealed", None)


def _dead_letters(
    settings: Settings, user_id: str, on_progress: OnProgress | None
) -> Iterator[Remainder]:
    topic = topics_of(settings).dead_letters
    mine = {topics_of(settings).commands(USER), topics_of(settings).events(USER)}
    for record in _everything(settings, topic, on_progress):
        came_from = dict(record.headers).get(headers.ERROR_TOPIC) or b""
        key = (record.key or b"").decode(errors="replace").partition(PART_SEPARATOR)[0]
        if key == user_id and came_from in {name.encode() for name in mine}:
            where = f"{topic}-{record.partition}@{record.offset}"
            yield Remainder(where, "dead letter with the bytes as they came", None)


def _everything(
    settings: Settings, topic: str, on_progress: OnProgress | None
) -> Iterator[IncomingRecord]:
    """All committed records of a topic of one partition, up to its end of now."""
    place = topic, 0
    target = kafka.end_offsets(AdminClient(kafka.admin(settings)), [place], CALL_S)[place]
    consumer = kafka.new_reader(settings)
    at = 0
    watch = Watch(at, target, DeadLettersStalled, on_progress)
    try:
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING)])
        while at < target:
            messages = kafka.what_came(consumer, BATCH, POLL_S)
            for message in messages:
                at = _after(message, at)
                if message.error() is None:
                    yield incoming(message)
            watch.moved(at, len(messages))
        watch.done()
    finally:
        consumer.close()


def _after(message: Message, at: int) -> int:
    """Where reading goes on. Raises KafkaException."""
    error, offset = message.error(), int(message.offset() or 0)
    if error is None:
        return offset + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return max(at, offset)
    if kafka.is_transient(error):
        return at
    raise KafkaException(error)
