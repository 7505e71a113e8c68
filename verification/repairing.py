"""Mends views where verification found drift: each aggregate anew from its newest record, then the totals.

Only views: a state that is not the fold of its history, or a law that is broken, is for a person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from readmodels.mending import mend, mend_users, remove_strays
from runtime.settings import Settings
from verification.drift import Drift, Kind


def repair(settings: Settings, drifts: Sequence[Drift]) -> int:
    """Mend what can be; returns how many findings were acted on. Raises Restless, NoEnd, KafkaException,
    RedisError.
    """
    by_view: defaultdict[str, list[Drift]] = defaultdict(list)
    for one in drifts:
        if one.repairable:
            by_view[one.where].append(one)
    for view, found in by_view.items():
        strays = [one.stray for one in found if one.stray is not None]
        if strays:
            remove_strays(settings, view, strays)
        rows = [one for one in found if one.stray is None and one.kind is not Kind.TOTALS]
        if rows:
            mend(settings, view, [one.key for one in rows], {one.key: one.strays for one in rows})
        users = {one.key: one.strays for one in found if one.kind is Kind.TOTALS}
        if users:  # after the rows, of which they are the sums
            mend_users(settings, users)
    return sum(map(len, by_view.values()))
