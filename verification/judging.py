"""Is what stands in a view right, while view and log go on? Pure.

A view that has applied all records before position P of a partition says what the log says up to P, or up
to any place after it: data is written before the position. So what stands is certainly wrong in two cases:

- No record of the aggregate lies at P or behind it, and what stands is not what the newest record makes.
- It claims a version of which the log has the record, and is not what that record makes; or a version higher
  than all.

Everything else is right, or cannot be told now: the aggregate moves, or the cleaner has removed the record
that a version came from. Asked again a moment later, P has moved on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from readmodels.documents import Pieces
from readmodels.lookup import Found
from readmodels.records import Change, fold


class Verdict(Enum):
    """What can be said."""

    RIGHT = auto()
    WRONG = auto()
    OPEN = auto()


Expected = Callable[[Any], Pieces]


def judge(
    stands: Pieces, applied: int, records: Sequence[Found], expected: Expected
) -> tuple[Verdict, Pieces]:
    """What to say of ``stands``, and what has to stand: at the position, or as far behind it as the view is.

    ``applied``: the view's position, read before ``stands``; ``records``: of this aggregate, in order, read
    from the log after it. ``expected``: row → what has to stand for it.
    """
    before = [one.change for one in records if one.offset < applied]
    after = [one.change for one in records if one.offset >= applied]
    wanted = expected(_row(before))
    if stands == wanted:
        return Verdict.RIGHT, wanted
    if not after:
        return Verdict.WRONG, wanted
    for n in range(len(after)):
        wanted = expected(_row([*before, *after[: n + 1]]))
        if stands == wanted:
            return Verdict.RIGHT, wanted
    return (Verdict.WRONG if _is_impossible(stands, records, expected) else Verdict.OPEN), wanted


def _is_impossible(stands: Pieces, records: Sequence[Found], expected: Expected) -> bool:
    row = stands["row"]
    if row is None:
        return False
    try:
        version = int(row.get("version", ""))
    except ValueError:
        return True
    versions = [one.change.version for one in records]
    if None in versions:  # an aggregate that was deleted and began anew has its versions twice
        return False
    made = [one.change.row for one in records if one.change.version == version and one.change.row]
    if made:
        return all(row != expected(one)["row"] for one in made)
    return version > max(known for known in versions if known is not None)


def _row(changes: Sequence[Change[Any]]) -> Any:
    folded = fold(changes)
    return folded[0].row if folded else None
