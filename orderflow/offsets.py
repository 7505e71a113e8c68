"""How far each commands partition is decided, what is missing of it, and how processors go on all the same.

The invariant: an offset is only ever set to the log's first one, and only where a processor would refuse.
"""

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from processors import command_processor, decided, evidence, saga_processor, starts
from processors.decided import Decided
from processors.loop import Work
from runtime import kafka, topic_admin
from runtime.settings import Settings

ANSWER_WITHIN_S: Final = 30.0
EMPTY_WITHIN_S: Final = 60.0
"""A processor that refuses is a member of its group for a moment, each time its supervisor restarts it."""

RETRY_S: Final = 0.2

_OCCUPIED: Final = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)

Place = tuple[str, int]


class GroupInUse(RuntimeError):
    """The group has members, so its offsets cannot be set: stop its processors first."""


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """One commands partition. ``decided``: commands before this offset are; None: nothing says how far.

    ``first``, ``end``: of the log. ``missing``: offsets between ``decided`` and ``first``. ``problem``: why a
    processor refuses; empty where it does not.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    decided: int | None
    first: int
    end: int
    missing: int
    problem: str


def examine(settings: Settings) -> list[PartitionOffsets]:
    """Judge every commands partition as its processor would. Raises KafkaException, TopicsUnfit."""
    topic_admin.require(settings)
    admin = AdminClient(kafka.admin(settings))
    works = (command_processor.WORK, saga_processor.work(settings))
    return [one for work in works for one in _of_group(settings, admin, work)]


def accept_loss(settings: Settings, found: Iterable[PartitionOffsets]) -> None:
    """Set the offset of each partition with a problem to the log's first one. Raises GroupInUse,
    KafkaException.
    """
    by_group: dict[str, list[TopicPartition]] = {}
    for one in found:
        if one.problem:
            at = TopicPartition(one.topic, one.partition, one.first)
            by_group.setdefault(one.group, []).append(at)
    for group, offsets in by_group.items():
        with closing(kafka.group_asker(settings, group)) as asker:
            deadline = time.monotonic() + EMPTY_WITHIN_S
            while True:
                try:
                    asker.commit(offsets=offsets, asynchronous=False)
                    break
                except KafkaException as error:
                    code = error.args[0].code()
                    if code not in _OCCUPIED and not kafka.is_transient(error.args[0]):
                        raise
                    if time.monotonic() > deadline:
                        raise GroupInUse(f"{group}: {GroupInUse.__doc__}") from error
                    time.sleep(RETRY_S)


def _of_group(settings: Settings, admin: AdminClient, work: Work) -> Iterable[PartitionOffsets]:
    topics, group = topic_admin.topics_of(settings), work.group_id(settings)
    names = [aggregate.name for aggregate in work.aggregates]
    places = [(topics.commands(name), n) for name in names for n in range(settings.partitions)]
    written = {
        topic(name): topics.commands(name)
        for name in names
        for topic in (topics.history, topics.outcomes)
    }
    ends = kafka.end_offsets(
        admin, [(t, n) for t in written for n in range(settings.partitions)], ANSWER_WITHIN_S
    )
    traced = {(written[topic], number) for (topic, number), end in ends.items() if end}
    ids = topic_admin.topic_ids(settings, [topics.commands(name) for name in names])
    with closing(kafka.group_asker(settings, group)) as asker:
        committed = kafka.group_offsets(asker, places, ANSWER_WITHIN_S)
    notes = _notes(settings, work, ids)
    for place in places:
        offset = committed[place]
        known = evidence.gather(
            admin,
            place,
            ids[place[0]],
            committed=offset if offset >= 0 else None,
            note=notes.get(place),
            anything_decided=place in traced,
        )
        yield _judged(group, place, known)


def _judged(group: str, place: Place, known: starts.Evidence) -> PartitionOffsets:
    found = starts.start(known)
    where = f"{place[0]}-{place[1]}"
    problem = "" if isinstance(found, starts.Begin) else starts.explain(where, found)
    up_to = None if isinstance(found, starts.Remade) else starts.decided(known)
    missing = max(0, known.first - up_to) if up_to is not None else 0
    return PartitionOffsets(
        group, *place, known.committed, up_to, known.first, known.end, missing, problem
    )


def _notes(settings: Settings, work: Work, ids: dict[str, str]) -> dict[Place, Decided]:
    """The farthest note of each partition below ORDERFLOW_HOME, of whichever place; one about a topic that is
    there before one about another.
    """
    topics = topic_admin.topics_of(settings)
    found: dict[Place, Decided] = {}
    for aggregate in work.aggregates:
        topic = topics.commands(aggregate.name)
        for number in range(settings.partitions):
            below = f"*/{settings.topic_prefix}/{aggregate.name}-{number}"
            read = [decided.read(at) for at in (settings.home / work.role).glob(below)]
            notes = [note for note in read if note is not None]
            if notes:
                found[topic, number] = max(
                    notes, key=lambda note: (note.topic_id == ids[topic], note.offset)
                )
    return found
