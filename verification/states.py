"""Levels 2 and 3 on the real topics: states against histories, and against each other.

A partition is read to an end between two transactions, events first and history after it, so the history
has what the states have. The few things a cut can still tear apart (a record that came while two partitions
or two aggregates were read) are told from what is wrong by looking again: what is wrong stays wrong.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Final

from confluent_kafka import Consumer

from commands.aggregate import Aggregate
from readmodels.lookup import read_to_end
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from sagas import AGGREGATES
from schemas.ids import PART_SEPARATOR
from verification import laws
from verification.drift import Drift
from verification.folding import Entry, Fold, States, newest_states
from verification.pace import Pace
from verification.sampling import Sample

LOOKS: Final = 3
PAUSE_S: Final = 1.0

Ids = Collection[str] | None
"""Aggregates to look at; None: all."""


class StateCheck:
    """One pass over all aggregates; keeps the newest states, of which the laws are asked."""

    def __init__(
        self, settings: Settings, consumer: Consumer, *, pace: Pace, sample_size: int | None
    ) -> None:
        self.checked = 0
        self.judged = 0
        self._settings = settings
        self._topics = topics_of(settings)
        self._consumer = consumer
        self._pace = pace
        self._sample_size = sample_size

    def histories(self) -> list[Drift]:
        """Level 2. Raises KafkaException, NoEnd, Stopped."""
        found: list[Drift] = []
        for aggregate in AGGREGATES:
            for partition in range(self._settings.partitions):
                found += self._check(aggregate, partition)
        return found

    def conservation(self) -> list[Drift]:
        """Level 3, over everything: a sum has no sample. Raises KafkaException, NoEnd, Stopped."""
        self.judged, found = laws.all_laws(self._cut(None))
        for _ in range(LOOKS - 1):
            if not found:
                break
            time.sleep(PAUSE_S)
            again = laws.all_laws(self._cut(None))[1]
            found = [
                one for one in again if (one.where, one.key) in {(f.where, f.key) for f in found}
            ]
        return found

    def _check(self, aggregate: Aggregate, partition: int) -> list[Drift]:
        found, count = self._look(aggregate, partition, None)
        self.checked += count
        for _ in range(LOOKS - 1):
            if not found:
                break
            time.sleep(PAUSE_S)
            suspects = {one.key.partition(PART_SEPARATOR)[0] for one in found}
            found, _count = self._look(aggregate, partition, suspects)
        return found

    def _look(self, aggregate: Aggregate, partition: int, ids: Ids) -> tuple[list[Drift], int]:
        states = newest_states(
            aggregate, self._read(self._topics.events(aggregate.name), partition, ids)
        )
        if ids is None and self._sample_size is not None:
            sample = Sample(max(1, self._sample_size // self._settings.partitions))
            sample.offer(states.roots)
            ids = set(sample.ids)
            states = _only(states, ids)
        fold = Fold(aggregate, states)
        for key, value in self._read(self._topics.history(aggregate.name), partition, ids):
            fold.add(key, value)
        return fold.finish(), len(states.roots)

    def _cut(self, ids: Ids) -> dict[str, States]:
        return {
            aggregate.name: newest_states(
                aggregate,
                (
                    entry
                    for partition in range(self._settings.partitions)
                    for entry in self._read(self._topics.events(aggregate.name), partition, ids)
                ),
            )
            for aggregate in AGGREGATES
        }

    def _read(self, topic: str, partition: int, ids: Ids) -> Iterator[Entry]:
        wanted = None if ids is None else {identity.encode() for identity in ids}
        separator = PART_SEPARATOR.encode()
        size = self._pace.batch
        for number, raw in enumerate(read_to_end(self._consumer, [(topic, partition)], size)):
            if number % size == 0:
                self._pace.spend(size)
            if wanted is None or (raw.key or b"").partition(separator)[0] in wanted:
                yield raw.key, raw.value


def _only(states: States, ids: Collection[str]) -> States:
    return States(
        {i: root for i, root in states.roots.items() if i in ids},
        {i: parts for i, parts in states.parts.items() if i in ids},
        states.deleted,
        {i: why for i, why in states.unreadable.items() if i in ids},
    )
