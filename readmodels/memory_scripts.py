"""The scripts in ``lua/`` that keep the views, once more in Python, for `memory`.

Only `memory` imports it. Arguments and replies are those that the header of each Lua file describes, so
a change there is a change here; tests/property/test_views.py fails until it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from readmodels.scripts import DOCUMENT, ORDER, PLACE
from runtime.redis import Reply

Hash: TypeAlias = dict[str, str]
ZSet: TypeAlias = dict[str, float]
Data: TypeAlias = dict[str, Any]
"""Key → text, `Hash` or `ZSet`."""

Changes: TypeAlias = Sequence[Sequence[Any]]


def _document(data: Data, keys: Sequence[str], changes: Changes) -> Reply:
    """As lua/document.lua."""
    written = 0
    for document_at, gone_at, ranking_at, version, reset, member, score, fields in changes:
        document, gone = keys[document_at - 1], keys[gone_at - 1]
        stored = data.get(document, {}).get("version")
        if not (reset or _is_newer(stored, data.get(gone), version, deletes=not fields)):
            continue
        written += 1
        data.pop(document, None)
        if fields:
            data[document] = _pairs(fields)
        _mark(data, gone, version, reset=reset, deletes=not fields)
        if ranking_at:
            _rank(data, keys[ranking_at - 1], member, float(score) if score else None)
    return written


def _place(data: Data, keys: Sequence[str], changes: Changes) -> Reply:
    """As lua/place.lua."""
    stands = [data.get(key) for key in keys]
    answer: list[Any] = []
    wanted = []
    for number, change in enumerate(changes, start=1):
        place_at, gone_at, version, reset, owner, former = change
        known = stands[place_at - 1]
        is_news = known is None and int(stands[gone_at - 1] or 0) < int(version or 0)
        if known is not None and known not in (owner, former):
            answer += [number, known]
        elif reset or is_news or (known is not None and known != owner):
            wanted.append(change)
        elif known is None and owner:
            answer += [number, ""]
    for place_at, gone_at, version, reset, owner, _former in wanted:
        if owner:
            data[keys[place_at - 1]] = owner
        else:
            data.pop(keys[place_at - 1], None)
        _mark(data, keys[gone_at - 1], version, reset=reset, deletes=not owner)
    return answer


def _order(data: Data, keys: Sequence[str], changes: Changes) -> Reply:
    """As lua/order.lua: what each order contributed before is taken from its user's sums, what it
    contributes now is added.
    """
    late: list[int] = []
    for number, change in enumerate(changes, start=1):
        document_at, gone_at, _user, list_at, *_, version, reset, _id, listed = change[:10]
        fields = change[13]
        document, gone = keys[document_at - 1], keys[gone_at - 1]
        stored: Hash = data.get(document, {})
        deletes = not fields
        if not (
            reset or _is_newer(stored.get("version"), data.get(gone), version, deletes=deletes)
        ):
            late += [number] if stored else []
            continue
        _move_sums(data, keys, change, stored)
        if stored.get("listed", "") != listed:
            if stored:
                _rank(data, keys[list_at - 1], stored["listed"], None)
            if listed:
                _rank(data, keys[list_at - 1], listed, 0.0)
        if deletes:
            data.pop(document, None)
        else:
            data[document] = stored | _pairs(fields)
        _mark(data, gone, version, reset=reset, deletes=deletes)
    return late


def _move_sums(data: Data, keys: Sequence[str], change: Sequence[Any], stored: Hash) -> None:
    user, top, top_spent = (keys[at - 1] for at in (change[2], change[4], change[5]))
    member, status, currency, spent = change[8], change[10], change[11], change[12]
    moves: dict[str, int] = defaultdict(int)
    if stored:
        moves["orders"] -= 1
        moves[f"status:{stored['status']}"] -= 1
    if status:
        moves["orders"] += 1
        moves[f"status:{status}"] += 1
    moves[f"spent:{currency}"] += int(spent) - int(stored.get("spent", 0))
    sums: Hash = dict(data.get(user, {}))
    for name, by in moves.items():
        total = int(sums.pop(name, 0)) + by
        if total:
            sums[name] = str(total)
    if sums:
        data[user] = sums
    else:
        data.pop(user, None)
    if moves["orders"]:
        _rank(data, top, member, _score(sums, "orders"))
    if moves[f"spent:{currency}"]:
        _rank(data, top_spent, member, _score(sums, f"spent:{currency}"))


def _score(sums: Hash, name: str) -> float | None:
    return float(sums[name]) if name in sums else None


def _is_newer(stored: str | None, gone: str | None, version: str, *, deletes: bool) -> bool:
    """Whether a change of this version is news; a deletion at the version that stands is meant for it."""
    if stored is None:
        return int(gone or 0) < int(version)
    return int(stored) < int(version) or (deletes and int(stored) == int(version))


def _mark(data: Data, gone: str, version: str, *, reset: int, deletes: bool) -> None:
    """Remembers a deletion at its version, or forgets an older one where the change says so."""
    if deletes and version:
        data[gone] = version
    elif reset:
        data.pop(gone, None)


def _rank(data: Data, ranking: str, member: str, score: float | None) -> None:
    """Gives a member its place; takes it out for None. An empty sorted set does not exist."""
    members: ZSet = data.setdefault(ranking, {})
    members.pop(member, None)
    if score is not None:
        members[member] = score
    if not members:
        del data[ranking]


def _pairs(fields: Sequence[str]) -> Hash:
    return dict(zip(fields[::2], fields[1::2], strict=True))


RUN: Final[dict[str, Callable[[Data, Sequence[str], Changes], Reply]]] = {
    DOCUMENT.sha: _document,
    PLACE.sha: _place,
    ORDER.sha: _order,
}
"""A script's hash → what it does."""
