"""Ten minutes of more than the pipeline can do: commands come faster than they are decided, and for a part of
the time Redis answers hardly ever. What has to come of it: lag, and nothing else.

Stock is reserved and released again, so what there is does not grow: what then grows is held by mistake.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks import workload
from benchmarks.bench import Bench, Found, Place
from benchmarks.processing import committed
from benchmarks.roles import Process, program
from processors.command_processor import WORK
from readmodels.keys import FIRST_GENERATION, Keys
from readmodels.views import STOCK
from runtime import kafka
from runtime.client import CommandClient, OutgoingCommand
from runtime.redis import connect
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import encode

LARGE_S: Final = 600.0
SMALL_S: Final = 30.0
LOOK_EVERY_S: Final = 1.0
AGGREGATE: Final = "inventory"
SKUS: Final = 1_000
MOST_BEHIND: Final = 300_000
"""The sender stops while so many commands wait: the disk is not what is measured."""

SLOW_FROM, SLOW_TO = 0.3, 0.6
"""Between these shares of the time Redis is slow."""

SLOW_MS: Final = 900
"""Of each second, Redis answers no writer for this long."""

DRAIN_S: Final = 600.0
_REFUSED: Final = b'"status":"rejected"'
MB: Final = 1_000_000


@dataclass(slots=True)
class Sample:
    """A look at everything, ``at`` seconds after the beginning."""

    at: float
    sent: int
    decided: int
    view_lag: int
    processor_mb: float
    projector_mb: float


@dataclass(slots=True)
class Soak:
    """What is looked at while it goes on."""

    place: Place
    processor: Process
    projector: Process
    ask: Callable[[], int]
    admin: AdminClient
    redis: Any
    samples: list[Sample] = field(default_factory=list)

    def look(self, at: float, sent: int) -> Sample:
        """Adds a sample. Raises RuntimeError where a process has ended."""
        of = []
        for process in (self.processor, self.projector):
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            of.append(psutil.Process(process.pid).memory_info().rss / MB)
        self.samples.append(Sample(at, sent, self.ask(), self._view_lag(), *of))
        return self.samples[-1]

    def _view_lag(self) -> int:
        """Offsets between the ends of the topic and the positions in Redis."""
        settings = self.place.settings
        topic = topics_of(settings).events(AGGREGATE)
        places = [(topic, partition) for partition in range(settings.partitions)]
        ends = kafka.end_offsets(self.admin, places, DRAIN_S)
        key = Keys(settings.topic_prefix, STOCK.name, FIRST_GENERATION).positions
        found = self.redis.hgetall(key)
        return sum(end - int(found.get(f"{topic}:{p}", 0)) for (_, p), end in ends.items())


def figures(bench: Bench) -> Found:
    """``large``: ten minutes."""
    seconds = LARGE_S if bench.large else SMALL_S
    with bench.place("soak") as place, _roles(place) as soak:
        sent = _overload(soak, seconds)
        drained = _drain(soak, sent)
        outcomes, refused = _count(place.settings, topics_of(place.settings).outcomes(AGGREGATE))
        log = Path(place.settings.home, "processors.log").read_text()
    failed = len(re.findall(r"transaction (?:failed|aborted)", log))
    found = {
        "commands sent": float(sent),
        "commands without an outcome": float(sent - outcomes),
        "commands refused": float(refused),
        "transactions that failed": float(failed),
        "drained afterwards, s": drained,
    }
    return Found(found | _lags_and_memory(soak.samples, seconds), _curves(soak.samples))


@contextmanager
def _roles(place: Place) -> Iterator[Soak]:
    place.settings.home.mkdir(parents=True, exist_ok=True)
    environment = {**place.environment, "ORDERFLOW_LOG_LEVEL": "WARNING"}
    commands = {
        name: [sys.executable, "-c", _INTO_LOG, name, str(place.settings.home / f"{name}.log")]
        for name in ("processors", "readmodels")
    }
    with (
        program(commands["processors"], environment) as processor,
        program(commands["readmodels"], environment) as projector,
        closing(connect(place.settings)) as redis,
    ):
        ask = committed(place.settings, WORK.group_id(place.settings), AGGREGATE)
        yield Soak(
            place, processor, projector, ask, AdminClient(kafka.admin(place.settings)), redis
        )


_INTO_LOG: Final = """
import os, runpy, sys
os.dup2(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
module = sys.argv[1]
sys.argv = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""Runs a module with its standard error in a file, from which failed transactions are counted."""


def _overload(soak: Soak, seconds: float) -> int:
    """Sends as fast as it can; returns how many commands."""
    began, looked, sent, behind = time.monotonic(), 0.0, 0, 0
    with CommandClient(soak.place.settings) as client:
        while (at := time.monotonic() - began) < seconds:
            if at - looked > LOOK_EVERY_S:
                looked = at
                if SLOW_FROM * seconds < at < SLOW_TO * seconds:
                    soak.redis.execute_command("CLIENT", "PAUSE", SLOW_MS, "WRITE")
                sample = soak.look(at, sent)
                behind = sent - sample.decided
            if behind > MOST_BEHIND:
                time.sleep(0.05)
                continue
            for _ in range(100):
                client.send(_command(sent))
                sent += 1
        client.flush()
    return sent


def _command(number: int) -> OutgoingCommand:
    """The first ones register the SKUs; then on one after the other a piece is reserved, and next time
    released.
    """
    sku = workload.sku(number % SKUS)
    if number < SKUS:
        data: dict[str, object] = {"description": "mug", "opening_stock": 1_000}
        return OutgoingCommand(AGGREGATE, sku, "RegisterItem", encode(data), f"i-{number}")
    turn = number // SKUS - 1
    reservation = {"reservation_id": f"r-{turn // 2}"}
    if turn % 2 == 0:
        kind, data = "ReserveStock", {**reservation, "quantity": 1}
    else:
        kind, data = "ReleaseReservation", {**reservation}
    return OutgoingCommand(AGGREGATE, sku, kind, encode(data), f"s-{number}")


def _drain(soak: Soak, sent: int) -> float:
    """Seconds until everything is decided and in the view. Raises TimeoutError."""
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_S:
        sample = soak.look(soak.samples[-1].at + LOOK_EVERY_S, sent)
        if sample.decided >= sent and sample.view_lag == 0:
            return time.monotonic() - began
        time.sleep(LOOK_EVERY_S)
    raise TimeoutError(f"not drained within {DRAIN_S:g} s: {soak.samples[-1]}")


def _count(settings: Settings, topic: str) -> tuple[int, int]:
    """Committed outcomes, and how many of them are refusals: here, none should be."""
    consumer, left, count, refused = Consumer(kafka.reader(settings)), settings.partitions, 0, 0
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(left)])
    while left:
        for message in consumer.consume(10_000, 0.1):
            error = message.error()
            if error is None:
                count += 1
                refused += _REFUSED in (message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                left -= 1
    consumer.close()
    return count, refused


def _lags_and_memory(samples: list[Sample], seconds: float) -> dict[str, float]:
    during = [sample for sample in samples if sample.at < seconds]
    early, last = next(sample for sample in during if sample.at > seconds / 4), during[-1]
    return {
        "decided under overload, commands/s": last.decided / last.at,
        "most commands waiting": float(max(sample.sent - sample.decided for sample in during)),
        "most events waiting for the view": float(max(sample.view_lag for sample in during)),
        "processor, resident at a quarter, MB": early.processor_mb,
        "processor, resident at the end, MB": last.processor_mb,
        "processor, resident, end / quarter": last.processor_mb / early.processor_mb,
        "projector, resident at a quarter, MB": early.projector_mb,
        "projector, resident at the end, MB": last.projector_mb,
        "projector, resident, end / quarter": last.projector_mb / early.projector_mb,
    }


def _curves(samples: list[Sample]) -> dict[str, list[tuple[float, float]]]:
    return {
        "commands waiting": [(each.at, float(each.sent - each.decided)) for each in samples],
        "events waiting": [(each.at, float(each.view_lag)) for each in samples],
        "processor, MB": [(each.at, each.processor_mb) for each in samples],
        "projector, MB": [(each.at, each.projector_mb) for each in samples],
    }
