"""Configurations of the librdkafka clients, each option with its why; nothing else builds a client.

Every configuration starts from the connection (addresses, TLS, SASL) and what the operator passes
through in ``KAFKA_OPTION_*``. What stands here comes on top of that: the guarantees hang on most of it.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime import kafka_log, watchdog
from runtime.settings import Settings, kafka_options
from schemas.topics import MAX_RECORD_BYTES

logger = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""A killed processor's open transaction hides what comes after it for at most this long."""

SESSION_TIMEOUT_MS: Final = 10_000
"""The partitions of a processor or projector that was killed are given to another one after this long."""

HEARTBEAT_MS: Final = 300
"""A member learns with its next heartbeat that the group rebalances: so long the partitions of one that left
wait for somebody.
"""

MAX_POLL_INTERVAL_MS: Final = 60_000
"""A processor that does not come back for its next batch in this time is taken for dead."""

FETCH_QUEUE_BACKOFF_MS: Final = 10
"""A consumer that has read as much ahead as it may looks after this time whether there is room again.
By default it is a second, in which a restore or a rebuild has long worked off what was read ahead.
"""

TRANSACTION_RETRY_BACKOFF_MS: Final = 2
TRANSACTION_RETRY_BACKOFF_MAX_MS: Final = 10
"""After a commit the broker answers CONCURRENT_TRANSACTIONS until the markers are written;
librdkafka's default pause of 100 ms would be the pipeline's latency.
"""


class KafkaNotConfigured(RuntimeError):
    """No broker address: set KAFKA_BOOTSTRAP_SERVERS, or start the embedded servers with `orderflow up`."""


def connection(settings: Settings) -> dict[str, Any]:
    """Options every client needs. Raises KafkaNotConfigured without a broker address."""
    if settings.kafka_bootstrap_servers is None:
        raise KafkaNotConfigured(KafkaNotConfigured.__doc__)
    options: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        options |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username or "",
            "sasl.password": password.get_secret_value() if password else "",
        }
    for option, path in (
        ("ssl.ca.location", settings.kafka_ssl_ca_location),
        ("ssl.certificate.location", settings.kafka_ssl_certificate_location),
        ("ssl.key.location", settings.kafka_ssl_key_location),
    ):
        if path is not None:
            options[option] = str(path)
    return options | kafka_log.log_options() | kafka_options()


def admin(settings: Settings) -> dict[str, Any]:
    """For topics and offsets. Its calls raise what is wrong; its own lines would wait for a poll for ever."""
    return connection(settings) | {"log_level": 0}


MOST_BUFFERED: Final = 200_000
"""Records that a producer holds before they are sent."""


def producer(settings: Settings) -> dict[str, Any]:
    """A plain producer: idempotent, so that a retry never doubles or reorders a command."""
    return connection(settings) | {
        "partitioner": "murmur2_random",  # as every official client; librdkafka's default is CRC32
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 1,  # lets a burst share a request, adds less than a transaction takes
        "message.max.bytes": MAX_RECORD_BYTES,
        "delivery.timeout.ms": 60_000,
        "queue.buffering.max.messages": MOST_BUFFERED,  # beyond it a sender waits: back-pressure
    }


def transactional_producer(settings: Settings, transactional_id: str) -> dict[str, Any]:
    """The processor's producer. Its id names the process' slot, so a restart fences what it was before."""
    return producer(settings) | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # librdkafka refuses a longer delivery timeout than the transaction has.
        "delivery.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # Whoever commits flushes, and that waits for nobody; until then records gather into few, large
        # batches. Sent each millisecond, they cost the client's threads twice as much, and the broker, too.
        "linger.ms": 50,
        "retry.backoff.ms": TRANSACTION_RETRY_BACKOFF_MS,
        "retry.backoff.max.ms": TRANSACTION_RETRY_BACKOFF_MAX_MS,
    }


def group_consumer(settings: Settings, group_id: str) -> dict[str, Any]:
    """A processor's consumer: its offsets are committed by the producer's transaction alone."""
    return connection(settings) | {
        "group.id": group_id,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",  # a rebalance stops only what moves
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS,
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Lost offsets must not skip (`latest`) or repeat (`earliest`) commands in silence; a partition
        # without any is set to its beginning by the processor when it is assigned.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100,
        "fetch.min.bytes": 1,
        "queued.max.messages.kbytes": 16_384,  # a partition's prefetch; bounds the memory
        "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
    }


def deciding_consumer(settings: Settings, group_id: str) -> dict[str, Any]:
    """A ``group_consumer`` that also reports where a partition ends, behind transaction markers: the group's
    offset has to reach that end, or retention moves the log's start beyond it.
    """
    return group_consumer(settings, group_id) | {"enable.partition.eof": True}


def repeating_consumer(settings: Settings, group_id: str) -> dict[str, Any]:
    """A consumer whose reactions may be repeated: without an offset it begins at the beginning."""
    return group_consumer(settings, group_id) | {"auto.offset.reset": "earliest"}


def reader(settings: Settings) -> dict[str, Any]:
    """A consumer outside of any group, for restoring, replies and rebuilds: it is told where to
    read.

    End-of-partition events tell how far it has come: the last readable record can lie well before
    the end offset, behind transaction markers and compacted records.
    """
    return connection(settings) | {
        "group.id": "unused",  # the client demands one; nothing is committed under it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # Where to read on, and that there is no more, is known one such wait later: it is the cost of a short
        # read. A reader that waits for more asks so often that it should not be shorter.
        "fetch.wait.max.ms": 20,
        "fetch.min.bytes": 1,
        "queued.max.messages.kbytes": 65_536,
        "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
    }


NO_OPTIONS: Final[Mapping[str, Any]] = {}

T = TypeVar("T")

RETRY_PAUSE_S: Final = 0.05
WATERMARK_CALL_S: Final = 5.0
LIST_CALL_S: Final = 5.0
LIST_WITHIN_S: Final = 30.0
OFFSETS_CALL_S: Final = 10.0
GROUP_CALL_S: Final = 5.0

TRANSIENT: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError._NOENT,  # "no leaders found", while a broker is away
        KafkaError.FENCED_LEADER_EPOCH,  # the client's metadata is of before the broker came back
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,  # metadata of a new topic spreads in its own time
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNSTABLE_OFFSET_COMMIT,  # a transaction with these offsets is still open
    }
)
"""What a cluster answers while it starts, elects or loses a broker: the same question again is right."""


STALE_METADATA: Final = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
"""The broker came back, and an admin client remembers what was before. It asks the same way for minutes
unless it is made to look again."""


def is_transient(error: KafkaError) -> bool:
    """Whether the same call may be answered a moment later."""
    return error.retriable() or error.code() in TRANSIENT


def until_answered(call: Callable[[], T], timeout_s: float) -> T:
    """Repeats a call while the cluster is not ready for it. Raises the last KafkaException
    otherwise.

    Only for calls that read or that the broker makes idempotent.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except KafkaException as error:
            if not is_transient(error.args[0]) or time.monotonic() > deadline:
                raise
            watchdog.beat()
            time.sleep(RETRY_PAUSE_S)


def new_reader(settings: Settings) -> Consumer:
    """A ``reader`` that knows the leader of every partition. Raises KafkaException.

    One that does not asks for the leaders of what it is assigned once a second, and waits.
    """
    consumer = Consumer(reader(settings))
    know_cluster(consumer)
    return consumer


def know_cluster(client: Consumer | Producer, within_s: float = LIST_WITHIN_S) -> None:
    """Waits until a client knows the brokers and all leaders. Raises KafkaException.

    A transactional producer asks for its coordinator over its first connection, which ends when it knows the
    cluster: where the question ends with it, ``init_transactions`` asks again half a second later.
    """
    until_answered(lambda: client.list_topics(timeout=LIST_CALL_S), within_s)


def first_offset_since(
    client: AdminClient, at: tuple[str, int], since_ms: int, timeout_s: float
) -> int | None:
    """Return the first offset whose record has this time or a later one; None: there is none. Raises
    KafkaException.
    """
    found = _offsets(client, [at], OffsetSpec.for_timestamp(since_ms), timeout_s)[at]
    return None if found < 0 else found


def watermarks(consumer: Consumer, at: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """First offset of a partition, and the one after the last that this consumer may read: for one that reads
    committed records the last stable offset. A transaction that was just committed is behind it until its
    markers are written, a moment later. Raises KafkaException.
    """
    return until_answered(
        lambda: consumer.get_watermark_offsets(at, timeout=WATERMARK_CALL_S), timeout_s
    )


def end_offsets(
    client: AdminClient, places: Collection[tuple[str, int]], timeout_s: float
) -> dict[tuple[str, int], int]:
    """High watermarks of (topic, partition): the offset after the last record, of an open transaction or
    not. Raises KafkaException.
    """
    return _offsets(client, places, OffsetSpec.latest(), timeout_s)


def first_offsets(
    client: AdminClient, places: Collection[tuple[str, int]], timeout_s: float
) -> dict[tuple[str, int], int]:
    """The first offset that is still there. Raises KafkaException."""
    return _offsets(client, places, OffsetSpec.earliest(), timeout_s)


def _offsets(
    client: AdminClient, places: Collection[tuple[str, int]], spec: OffsetSpec, timeout_s: float
) -> dict[tuple[str, int], int]:
    asked = {TopicPartition(*at): spec for at in places}

    def answers() -> dict[tuple[str, int], int]:
        futures = client.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=OFFSETS_CALL_S
        )
        try:
            within_s = 2 * OFFSETS_CALL_S  # the library ends it earlier, unless it hangs
            return {
                (at.topic, at.partition): f.result(within_s).offset for at, f in futures.items()
            }
        except KafkaException as error:
            if error.args[0].code() in STALE_METADATA:
                client.list_topics(timeout=LIST_CALL_S)
            raise

    return until_answered(answers, timeout_s)


def group_asker(settings: Settings, group: str, more: Mapping[str, Any] = NO_OPTIONS) -> Consumer:
    """A consumer that only asks for a group's offsets, see ``group_offsets``, and does not join it.
    ``more``: options.

    An admin client that asks before there is a coordinator takes the process down (librdkafka 2.16).
    """
    # One that reads committed records would wait until no transaction is under way, and there always is one.
    return Consumer(
        group_consumer(settings, group) | {"isolation.level": "read_uncommitted", **more}
    )


def group_offsets(
    asker: Consumer, places: Collection[tuple[str, int]], timeout_s: float
) -> dict[tuple[str, int], int]:
    """What the asker's group has committed for each (topic, partition); negative: nothing. Raises
    KafkaException.
    """
    wanted = [TopicPartition(*place) for place in places]
    found = until_answered(lambda: asker.committed(wanted, GROUP_CALL_S), timeout_s)
    return {(at.topic, at.partition): at.offset for at in found}


def membership(consumer: Consumer) -> bytes | None:
    """Return the group metadata by which the broker fences a transaction; None without a membership.

    The broker accepts offsets in a transaction that name no member, from any client. A consumer whose session
    has ended names none until it joins again.
    """
    metadata: bytes = consumer.consumer_group_metadata()
    # Asked second: a lost id comes back within ``consume`` only, so an id now was an id then.
    return metadata if consumer.memberid() else None


def what_came(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """At most so many messages and errors; waits for a first one, not for more.

    Asked for many at once, the library would wait until it has them all or the time is up.
    """
    messages = consumer.consume(1, wait_s)
    if messages and most > 1:
        messages += consumer.consume(most - 1, 0)
    if not messages:
        # The library's own thread sleeps for half a second or longer when nothing happens, and only awake it
        # sends heartbeats and joins its group. Asked something, it wakes: an idle member holds up nobody.
        consumer.memberid()
    return messages


def is_record(message: Message) -> bool:
    """Whether it is no error. Raises KafkaException for a fatal one; the others are logged."""
    error = message.error()
    if error is None:
        return True
    if error.fatal():
        raise KafkaException(error)
    logger.warning("consumer: %s", error.str())  # the library goes on trying by itself
    return False
