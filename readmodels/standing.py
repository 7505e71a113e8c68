"""Which generation of a view is live, which was before it, and which one a rebuild fills or left behind.

One hash says it (`keys.views_key`), so a switch of several views is one write. `rebuilding` and `rollback`
write it, under the lock of `generations`; everybody may read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

from readmodels.keys import FIRST_GENERATION, views_key
from readmodels.scripts import SWITCH
from readmodels.steps import Steps
from readmodels.views import View
from schemas.topics import TOMBSTONE_RETENTION_MS

RESUMABLE_MS: Final = TOMBSTONE_RETENTION_MS // 2
"""A generation that was not fed for longer is not read on with: the cleaner may have removed a deletion
that it has not seen. Half of what the topic keeps them for: reading on takes time, too."""


@dataclass(frozen=True, slots=True)
class Left:
    """A generation that is not live. ``since_ms``: when it was begun or switched from; ``code``: what it
    was projected with, empty if that does not matter.
    """

    generation: int
    since_ms: int
    code: str = ""

    @property
    def text(self) -> str:
        """As it stands in Redis."""
        return f"{self.generation}:{self.since_ms}:{self.code}"

    @classmethod
    def of(cls, text: str | None) -> Self | None:
        """Of what stands in Redis; None of nothing."""
        if not text:
            return None
        generation, since_ms, code = text.split(":")
        return cls(int(generation), int(since_ms), code)

    def is_fresh(self, now_ms: int) -> bool:
        """Whether reading on from its positions misses nothing."""
        return now_ms - self.since_ms < RESUMABLE_MS


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one view. ``stood``: the live generation as it stands in Redis; empty: none stands there."""

    stood: str
    previous: Left | None
    building: Left | None

    @property
    def live(self) -> int:
        """The generation that queries read."""
        return int(self.stood or FIRST_GENERATION)

    @property
    def kept(self) -> set[int]:
        """Generations that are somebody's."""
        left = {one.generation for one in (self.previous, self.building) if one is not None}
        return {self.live, *left}


def read(prefix: str, views: Sequence[View]) -> Steps[dict[str, Standing]]:
    """View → how it stands."""
    replies = yield [
        ("HMGET", views_key(prefix), view.name, _previous(view.name), _building(view.name))
        for view in views
    ]
    found: dict[str, Standing] = {}
    for view, (stood, previous, building) in zip(views, replies, strict=True):
        began, left = Left.of(building), Left.of(previous)
        settled = {int(stood or FIRST_GENERATION), left.generation if left else None}
        if began is not None and began.generation in settled:
            began = None  # it went live, and who switched was killed before saying so
        found[view.name] = Standing(stood or "", left, began)
    return found


def begin(prefix: str, view: str, building: Left) -> Steps[None]:
    """Say that this generation is being filled: another process may go on with it."""
    yield [("HSET", views_key(prefix), _building(view), building.text)]


def forget(prefix: str, views: Sequence[View], *, previous: bool = False) -> Steps[None]:
    """No generation of these views is being filled any more; or, ``previous``, none is kept."""
    names = [_previous(view.name) if previous else _building(view.name) for view in views]
    yield [("HDEL", views_key(prefix), *names)]


def switch(
    prefix: str,
    standing: Mapping[str, Standing],
    now: Mapping[str, int],
    previous: Mapping[str, Left | None],
) -> Steps[bool]:
    """Make all of them live at once, unless one of them was switched since ``standing`` was read."""
    arguments: list[str | int] = []
    for view, generation in now.items():
        left = previous.get(view)
        arguments += [view, standing[view].stood, generation, left.text if left else ""]
    replies = yield [SWITCH.call([views_key(prefix)], *arguments)]
    return bool(replies[0])


@cache
def code() -> str:
    """A hash of all code that may decide what a view says: a generation is filled by one code only."""
    here = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for folder in (here, here.parent / "schemas"):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.lua")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _previous(view: str) -> str:
    return f"{view}:previous"


def _building(view: str) -> str:
    return f"{view}:building"
