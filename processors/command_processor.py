"""The command processor: it decides the commands of the domain's aggregates."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from commands import AGGREGATES, by_name
from processors.decider import Decider
from processors.loop import Work

WORK: Final = Work("processor", AGGREGATES, Decider)


class UnknownAggregate(ValueError):
    """No aggregate has this name."""


def work(names: Collection[str] = ()) -> Work:
    """What a processor does that decides these aggregates' commands only; all where none is named.

    All are one group, whoever decides what. An aggregate with processes of its own has its partitions spread
    evenly over them: the group balances how many partitions a process has, and not of which topic.
    Raises UnknownAggregate.
    """
    unknown = sorted(set(names) - by_name.keys())
    if unknown:
        known = ", ".join(by_name)
        raise UnknownAggregate(f"there is no aggregate {', '.join(unknown)}; there are {known}")
    if not names:
        return WORK
    return replace(WORK, aggregates=tuple(one for one in AGGREGATES if one.name in names))
