"""What a follower of a view does next: wait, read everything, or read what has changed. Pure.

A row has a stamp of the store (readmodels/lua/stamp.lua): it says in which order rows changed in a
bucket, not when something happened in the shop, because a record may come late with an old time. The
cursor of a bucket is the last stamp whose rows are all in the target. Rows may have equal stamps; none
comes to a stamp later, so a page that ends with a whole stamp can be followed by the next stamp.

Stamps are good for one filling of one generation on one server. Where any of the three is another, the
cursors mean nothing and everything is read: a *pass*. A pass deletes what it did not meet, so it waits
until the view is at least where it was when the target was last complete: an emptied view empties nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

PAGE: Final = 100
"""Changed rows of a bucket that are asked for at once. A page may exceed it by the rows of one stamp."""

Stamp: TypeAlias = int
Stamped: TypeAlias = tuple[str, Stamp]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which filling, of which generation, on which run of a server. Cursors hold while it does."""

    generation: int
    born: str
    server: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis says of a view at one moment.

    ``positions``: ``<topic>:<partition>`` → the offset up to which all is in. ``topics``: name → id.
    ``newest``, ``horizon``: of each bucket, its last stamp, and the one up to which deletions have been
    dropped; 0 if there is none.
    """

    identity: Identity
    positions: Mapping[str, int]
    topics: Mapping[str, str]
    newest: Sequence[Stamp]
    horizon: Sequence[Stamp]


@dataclass(frozen=True, slots=True)
class Stand:
    """What the target has of a view. ``identity`` None: nothing complete yet.

    ``covered``: positions up to which it has everything. ``cursors``: by bucket, none is 0. ``number``:
    of the last pass that began; ``filling``: it has not ended. ``revision`` grows with each transaction.
    """

    revision: int = 0
    number: int = 0
    filling: bool = False
    identity: Identity | None = None
    covered: Mapping[str, int] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    cursors: Mapping[int, Stamp] = field(default_factory=dict)


Reason = Literal["first", "broken_off", "rebuilt", "refilled", "other_server", "too_old"]

WHY: Final[Mapping[Reason, str]] = {
    "first": "the target is empty",
    "broken_off": "the last pass was broken off",
    "rebuilt": "the view was rebuilt",
    "refilled": "Redis was emptied, and the view filled again",
    "other_server": "Redis was restarted or is another server",
    "too_old": "deletions since the last poll have been forgotten",
}


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing yet; ``why`` says what is missing."""

    why: str


@dataclass(frozen=True, slots=True)
class Pass:
    """Read every row, then delete what was not met."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Follow:
    """Read what has changed since the cursors."""


class OtherTopics(ValueError):
    """The view reads another topic of the same name than the one the target was filled from."""


def plan(stand: Stand, seen: Seen) -> Wait | Pass | Follow:
    """The next step. Raises OtherTopics: offsets of two topics cannot be compared."""
    if not seen.positions:
        return Wait("Redis has no such view; a projector fills it")
    changed = [
        topic for topic, id_ in stand.topics.items() if seen.topics.get(topic, id_) not in ("", id_)
    ]
    if changed:
        raise OtherTopics(f"the topic {changed[0]} was deleted and made anew")
    reason = _why_a_pass(stand, seen)
    if reason is None:
        return Follow()
    behind = [name for name, at in stand.covered.items() if seen.positions.get(name, -1) < at]
    if behind:
        first = min(behind)
        return Wait(
            f"Redis is behind the target: {first} at {seen.positions.get(first, 'nothing')} of"
            f" {stand.covered[first]}; a projector brings it there"
        )
    return Pass(reason)


def _why_a_pass(stand: Stand, seen: Seen) -> Reason | None:
    if stand.filling:
        return "broken_off"
    if stand.identity is None:
        return "first"
    if stand.identity.generation != seen.identity.generation:
        return "rebuilt"
    if stand.identity.born != seen.identity.born:
        return "refilled"
    if stand.identity.server != seen.identity.server:
        return "other_server"
    if any(stand.cursors.get(b, 0) < dropped for b, dropped in enumerate(seen.horizon)):
        return "too_old"
    return None


def whole_stamps(
    page: Sequence[Stamped], rest: Sequence[Stamped]
) -> tuple[list[str], Stamp | None]:
    """The rows of a page, and the stamp after which to go on; None for an empty page.

    ``rest``: if the page is full, all rows of its last stamp, so that none of them is left out.
    """
    if not page:
        return [], None
    ids = dict.fromkeys(id_ for id_, _ in page)
    ids.update(dict.fromkeys(id_ for id_, stamp in rest if stamp == page[-1][1]))
    return list(ids), page[-1][1]
