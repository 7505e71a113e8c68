"""Where a part works: servers that all parts share, and for each measurement topics and a home of its own."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from runtime import kafka, topic_admin
from runtime.redis import connect
from runtime.settings import Settings

TIMEOUT_S: Final = 60.0
SETTLE_S: Final = 1.0
"""Longer than the broker leaves the files of deleted topics, so that nobody is measured meanwhile."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Found:
    """What one round of a part gave. ``curves``: for the plots, each a list of points. ``notes``: what was
    left out, and why.
    """

    figures: Figures
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Settings, and the same as environment for a role's process."""

    settings: Settings
    environment: Mapping[str, str]

    def make_topics(self, names: Sequence[str]) -> list[str]:
        """More topics for a comparator, with as many partitions as the pipeline's; returns their names."""
        full = [f"{self.settings.topic_prefix}.{name}" for name in names]
        client = AdminClient(kafka.admin(self.settings))
        new = [NewTopic(name, self.settings.partitions, 1) for name in full]
        for future in client.create_topics(new, operation_timeout=TIMEOUT_S).values():
            future.result()
        while not set(full) <= client.list_topics(timeout=TIMEOUT_S).topics.keys():
            time.sleep(0.05)
        return full


@dataclass(frozen=True, slots=True)
class Bench:
    """One round. ``commands``: how many a throughput is measured with. ``turn``: number of the round, from 0;
    who goes first changes with it.
    """

    environment: Mapping[str, str]
    folder: Path
    commands: int
    seconds: float
    large: bool = False
    turn: int = 0

    def in_turn(self, names: Sequence[str]) -> list[str]:
        """The names, beginning with another one each round."""
        first = self.turn % len(names)
        return [*names[first:], *names[:first]]

    def to_and_fro(self, sizes: Sequence[int]) -> Sequence[int]:
        """The sizes, every other round from the last to the first."""
        return sizes if self.turn % 2 == 0 else sizes[::-1]

    @contextmanager
    def place(self, name: str, partitions: int = 4) -> Iterator[Place]:
        """Topics under a prefix of their own, a home, an empty Redis; all are gone afterwards."""
        prefix = f"bench-{name}-{self.turn}"
        home = self.folder / "homes" / prefix
        environment = {
            **self.environment,
            "ORDERFLOW_TOPIC_PREFIX": prefix,
            "ORDERFLOW_PARTITIONS": str(partitions),
            "ORDERFLOW_HOME": str(home),
        }
        place = Place(Settings.model_validate(environment), environment)
        topic_admin.apply(place.settings)
        try:
            yield place
        finally:
            _delete_topics(place.settings)
            with closing(connect(place.settings)) as redis:
                redis.flushall()
            shutil.rmtree(home, ignore_errors=True)
            time.sleep(SETTLE_S)


def _delete_topics(settings: Settings) -> None:
    client = AdminClient(kafka.admin(settings))
    begin = f"{settings.topic_prefix}."
    names = [
        name for name in client.list_topics(timeout=TIMEOUT_S).topics if name.startswith(begin)
    ]
    for future in client.delete_topics(names, operation_timeout=TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
