"""The verifier as a role of a deployment: one slow pass after the other, at a bounded rate.

Each pass ends with a line in the log and, in Redis, what it came to (`keys.verified_key`), which
`orderflow consistency` shows. It mends nothing: that is a person's decision (`orderflow verify --repair`).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import closing
from types import FrameType
from typing import Final

import msgspec
from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from readmodels.keys import verified_key
from runtime.condition import Condition
from runtime.kafka import KafkaNotConfigured
from runtime.reading import NoEnd
from runtime.redis import RedisNotConfigured, pooled
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit, topic_ids, topics_of
from runtime.topic_watch import TopicWatch
from schemas.decoding import Int64
from schemas.topics import AGGREGATES
from verification.drift import Drift
from verification.pace import Pace, Stopped
from verification.run import Report, verify

logger = logging.getLogger(__name__)

PER_S: Final = 200
"""Records and rows a second by default: a few per cent of one core."""

BETWEEN_PASSES_S: Final = 60.0
AFTER_FAULT_S: Final = 5.0
TOLD: Final = 100


class Verified(msgspec.Struct, frozen=True):
    """What the last pass came to: its end (ms), how much was looked at, what is wrong."""

    at_ms: Int64
    seconds: float
    looked_at: Int64
    drifts: Int64
    first: tuple[str, ...]


def run_verifier(settings: Settings, per_s: int = PER_S) -> int:
    """Verify until SIGTERM or SIGINT; returns the exit code. Call it from the main thread."""
    begin_role(settings)
    stop = threading.Event()

    def ask_to_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    logger.info("verifier is running, %d records and rows a second", per_s)
    topics: TopicWatch | None = None
    servers = Condition("Kafka and Redis")
    while not stop.is_set():
        try:
            topics = topics or _topic_watch(settings)
            topics.look()
            report = verify(settings, pace=Pace(per_s, stop, topics.look))
            servers.whole()
            _tell(settings, report)
            pause = BETWEEN_PASSES_S
        except Stopped:
            break
        except (KafkaNotConfigured, RedisNotConfigured, TopicsUnfit) as refusal:
            logger.error("%s", refusal)
            return EXIT_REFUSED
        except (KafkaException, RedisError, NoEnd, OSError) as fault:
            servers.broken(fault)
            pause = AFTER_FAULT_S
        stop.wait(pause)
    return EXIT_OK


def _topic_watch(settings: Settings) -> TopicWatch:
    """Raises TopicsMissing, KafkaException."""
    topics = topics_of(settings)
    names = [name for a in AGGREGATES for name in (topics.events(a), topics.history(a))]
    return TopicWatch(settings, topic_ids(settings, names))


def _tell(settings: Settings, report: Report) -> None:
    for drift in report.drifts[:TOLD]:
        logger.warning("drift: %s", drift.sentence)
    looked_at = report.rows + report.states + report.laws
    logger.info(
        "pass ended: %d looked at, %d drifts, %d moving, %.0f s",
        looked_at,
        len(report.drifts),
        report.moving,
        report.seconds,
    )
    first: tuple[Drift, ...] = report.drifts[:TOLD]
    verified = Verified(
        time.time_ns() // 1_000_000,
        round(report.seconds, 1),
        looked_at,
        len(report.drifts),
        tuple(drift.sentence for drift in first),
    )
    with closing(pooled(settings)) as redis:
        redis.run([("SET", verified_key(settings.topic_prefix), msgspec.json.encode(verified))])
