"""Where a processor begins to read a commands partition. Pure.

The group's offset says how far commands were decided, and so does the note that a processor keeps on its disk
(`processors.decided`); offsets expire, and a disk can be a fresh one. The invariant: what was not decided is
never passed over in silence, and where nothing was lost a processor goes on by itself.
"""

from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one commands partition; offsets, but for the two flags.

    ``committed``: by the group. ``noted``: on this disk; ``noted_of_another``: the note is about another
    topic of this name. ``anything_decided``: the restored state has a trace of a decision. ``first``,
    ``end``: of the log. ``recognised_from``: a command at this offset or behind it is recognised if it was
    decided before.
    """

    committed: int | None
    noted: int | None
    noted_of_another: bool
    anything_decided: bool
    first: int
    end: int
    recognised_from: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Read from this offset on."""

    offset: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Commands from ``decided`` up to ``first`` were never decided and are gone from the log, if there were
    any.
    """

    decided: int
    first: int


@dataclass(frozen=True, slots=True)
class Shortened:
    """The log ends before what was decided: it is not the log that it was."""

    decided: int
    end: int


@dataclass(frozen=True, slots=True)
class Remade:
    """The topic was deleted and recreated, and all commands on it are gone."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing says how far commands were decided, and reading from ``first`` on would decide some twice or
    pass some over.
    """

    first: int


Lost = Missing | Shortened | Remade | Unknown


def start(evidence: Evidence) -> Begin | Lost:
    """Return where to begin, or why no offset is right."""
    if evidence.committed is None and evidence.noted_of_another:
        return Remade()
    up_to = decided(evidence)
    if up_to is None:
        # The log is read from its first offset; what was decided is answered with its first outcome.
        whole = evidence.first == 0 and evidence.recognised_from == 0
        return Begin(0) if whole else Unknown(evidence.first)
    if up_to < evidence.first:
        return Missing(up_to, evidence.first)
    if up_to > evidence.end:
        return Shortened(up_to, evidence.end)
    return Begin(up_to)


def decided(evidence: Evidence) -> int | None:
    """Return the offset before which every command was decided or never came; None: unknown."""
    committed, noted = evidence.committed, evidence.noted
    if committed is not None and (noted is None or committed >= evidence.first):
        return committed  # an operator may have set it back on purpose
    if noted is not None:
        return max(noted, committed or 0)
    return None if evidence.anything_decided else 0


def explain(where: str, found: Lost) -> str:
    """Say what is wrong with a partition, and how much."""
    match found:
        case Missing(up_to, first):
            return (
                f"{where}: commands were decided up to offset {up_to}, but the log begins at {first}: "
                f"{first - up_to} offsets are missing, and the commands on them were never decided"
            )
        case Shortened(up_to, end):
            return (
                f"{where}: commands were decided up to offset {up_to}, but the log ends at {end}: "
                "it is not the log that it was"
            )
        case Remade():
            return (
                f"{where}: the topic was deleted and recreated, with commands that were not decided"
            )
        case Unknown(first):
            return (
                f"{where}: commands were decided, but neither the group's offset nor this disk says how "
                f"far, and the log begins at {first} with commands that may not be recognised any more"
            )
        case _:
            assert_never(found)
