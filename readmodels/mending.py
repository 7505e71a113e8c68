"""Makes single aggregates of a live view anew, from their newest records in the log, and what they add up to.

The row is written even though its version is not newer: it may be damaged, or have a version that never was.
So the version guard is not enough against a projector that is at work meanwhile. What makes it safe:

1. What stands in Redis is noted *before* the log is read, so all of it that is right is in the log.
2. The row is replaced only if it still stands so, or is not newer than the record (WATCH, MULTI, EXEC). Else
   a projector has written it meanwhile, all of it, from a newer record.
3. The log is read once more *after* the write. A newer record that a damaged version has kept out is found
   now, and applied in the ordinary way.

No lock is needed: a rebuild fills other keys. If it switches meanwhile, the new generation is mended as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer

from readmodels import positions
from readmodels.keys import Keys
from readmodels.lookup import Found, look_up
from readmodels.order_mending import mend_user
from readmodels.records import Change, fold
from readmodels.scripts import load_commands
from readmodels.steps import Steps, drive
from readmodels.views import ORDERS, View, named
from runtime import kafka
from runtime.redis import Line, is_cluster, new_line
from runtime.settings import Settings

Records: TypeAlias = dict[str, tuple[Found, ...]]

ATTEMPTS: Final = 100
"""Each takes a millisecond, and is lost only to a projector that writes the same user or document in it."""


class Restless(RuntimeError):
    """The aggregate changed again and again while it was mended; try again."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of an aggregate in a view: ``result`` is "written", "deleted" (its newest record is a
    deletion) or "removed" (the log knows nothing of it).
    """

    view: str
    aggregate_id: str
    result: str
    version: int | None


def mend(
    settings: Settings,
    view: str,
    ids: Collection[str],
    strays: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Mended, ...]:
    """Make these aggregates' rows in the live view what their newest records say.

    ``strays``: for orders, further users under whom a row of that order stands. Raises Restless, NoEnd,
    KafkaException, RedisError.
    """
    (one,) = named([view])
    with closing(new_line(settings)) as line, closing(kafka.new_reader(settings)) as reader:
        line.run(load_commands())  # one that is missing must not fail inside of MULTI
        while True:
            keys = _live(settings, line, one)
            wanted = {i: (strays or {}).get(i, ()) for i in ids}
            found = _mend(settings, (line, reader), one, keys, wanted)
            drive(line, positions.rename(keys))
            if _live(settings, line, one) == keys:  # else it was switched: the new generation, too
                return tuple(_told(view, i, _newest(found[i])) for i in sorted(ids))


def _mend(
    settings: Settings,
    connections: tuple[Line, Consumer],
    view: View,
    keys: Keys,
    ids: Mapping[str, Sequence[str]],
) -> Records:
    line, reader = connections
    seen = {i: drive(line, view.seen(keys, i)) for i in sorted(ids)}
    found = look_up(settings, view, ids, reader)
    for i, stands in seen.items():
        newest = _newest(found[i])
        _insist(line, partial(view.mend, keys, i, newest, stands, ids[i]), i)
    found = look_up(settings, view, ids, reader)
    drive(line, view.apply(keys, [new for i in ids if (new := _newest(found[i])) is not None]))
    return found


def mend_users(
    settings: Settings,
    users: Mapping[str, Collection[str]],
    orders: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Compute anew what these users' orders add up to. ``users``: each with the currencies in whose rankings
    they stand, if more than their orders say; ``orders``: of a user, those that stand but may not be
    listed. Raises Restless, RedisError.
    """
    with closing(new_line(settings)) as line:
        keys = _live(settings, line, ORDERS)
        for user, currencies in users.items():
            also = (orders or {}).get(user, ())
            _insist(line, partial(mend_user, keys, user, also, currencies=currencies), user)
        drive(line, positions.rename(keys))


def remove_strays(settings: Settings, view: str, strays: Iterable[tuple[str, str]]) -> None:
    """Remove keys (without the generation's stem), or members of sorted sets, that stand where nothing of
    the view belongs. Raises RedisError.
    """
    (one,) = named([view])
    with closing(new_line(settings)) as line:
        keys = _live(settings, line, one)
        for name, member in strays:
            line.run(
                [("ZREM", keys.stem + name, member) if member else ("UNLINK", keys.stem + name)]
            )
        drive(line, positions.rename(keys))


def _insist(line: Line, steps: Callable[[], Steps[bool]], what: str) -> None:
    for _ in range(ATTEMPTS):
        if drive(line, steps()):
            return
    raise Restless(f"{Restless.__doc__} {what}")


def _live(settings: Settings, line: Line, view: View) -> Keys:
    live = drive(line, positions.live(settings.topic_prefix, [view]))
    return Keys(settings.topic_prefix, view.name, live[view.name], is_cluster(settings))


def _newest(found: Iterable[Found]) -> Change[Any] | None:
    folded = fold(one.change for one in found)
    return folded[0] if folded else None


def _told(view: str, identity: str, change: Change[Any] | None) -> Mended:
    if change is None:
        return Mended(view, identity, "removed", None)
    return Mended(view, identity, "deleted" if change.row is None else "written", change.version)
