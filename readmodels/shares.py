"""What a rebuild and the processes it starts say to each other, and who of them fills which partitions.

Everything here is data that both ends know; it crosses a pipe between them. `spreading` is one end,
`filling_process` the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readmodels.positions import TopicPart
from runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Share:
    """What one process has to fill. ``generations``: view → the one to fill; ``starts``: the first offset of
    each of its partitions; ``targets``: how far to read them. ``code``: `standing.code` of the one who asks,
    ``asked_by`` its process id.
    """

    settings: Settings
    generations: Mapping[str, int]
    starts: Mapping[TopicPart, int]
    targets: Mapping[TopicPart, int]
    code: str
    asked_by: int


@dataclass(frozen=True, slots=True)
class Report:
    """How far a process is: offsets passed, records read, how many of them were unreadable. ``ended``: all
    of its share is in.
    """

    done: int = 0
    records: int = 0
    unreadable: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class KafkaFailed:
    """A KafkaException, which does not cross a pipe itself."""

    code: int
    reason: str


def divide(left: Mapping[TopicPart, int], count: int) -> list[list[TopicPart]]:
    """Partitions for ``count`` processes, each with much the same number of offsets to read (``left``):
    the longest first, to who has least. Needs at least as many partitions as processes.
    """
    shares: list[list[TopicPart]] = [[] for _ in range(count)]
    loads = [0] * count
    for part in sorted(left, key=lambda one: (-left[one], one)):
        least = loads.index(min(loads))
        shares[least].append(part)
        loads[least] += left[part]
    return shares
