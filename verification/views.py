"""Level 1: is a view in Redis what the newest states make of it? Both ways, and with what they add up to.

The view's topic is read up to where the view is, some records at a time, and each is compared with what
stands; then all keys of the view are looked through for what no aggregate accounts for. What differs is only
suspected: `judging` says of it what is certain, at the position the view had when it was read. Totals are
computed from the orders that stand, all of one user read at one moment (WATCH, MULTI, EXEC).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer

from readmodels import generations, positions
from readmodels.keys import Keys, bucket_of
from readmodels.lookup import look_up, partition_of, read_between
from readmodels.order_mending import Totals, totals, user_at_once
from readmodels.preflight import watermarks
from readmodels.records import Change, Unreadable, fold
from readmodels.records import read as read_record
from readmodels.steps import drive
from readmodels.views import ORDERS, View
from runtime.redis import Line, is_cluster
from runtime.settings import Settings
from verification.drift import Drift, Kind, Level
from verification.judging import Verdict, judge
from verification.pace import Pace
from verification.sampling import Sample

LOOKS: Final = 6
PAUSE_S: Final = 0.5
"""Between two looks at what moves; a projector that runs is through with it by then."""

Suspects = dict[str, set[str]]
"""Aggregate id → further users under whom a row of it stands."""


@dataclass
class ViewResult:
    """``checked`` aggregates, totals and keys; ``open``: what moved at every look, so nothing is said."""

    view: str
    checked: int = 0
    open: int = 0
    drifts: list[Drift] = field(default_factory=list)


class ViewCheck:
    """One pass over one view."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        line: Line,
        consumer: Consumer,
        *,
        pace: Pace,
        sample: Sample,
    ) -> None:
        self._settings = settings
        self._view = view
        self._line = line
        self._consumer = consumer
        self._pace = pace
        self._sample = sample
        live = drive(line, positions.live(settings.topic_prefix, [view]))
        self._keys = Keys(settings.topic_prefix, view.name, live[view.name], is_cluster(settings))
        self._seen: set[str] = set()
        self._deleted: set[str] = set()  # of those seen, whose newest record is a deletion
        self._rows_under: defaultdict[str, set[str]] = defaultdict(set)
        self._result = ViewResult(view.name)

    def run(self) -> ViewResult:
        """Raises RedisError, KafkaException, NoEnd, Stopped."""
        (at,) = drive(self._line, positions.read([self._keys]))
        marks = watermarks(self._settings, [self._view])
        for part, (_, high) in marks.items():
            if at.get(part, 0) > high:
                self._add(Kind.POSITION, positions.field(part), high, at[part])
        suspects: Suspects = {}
        for part, (low, high) in marks.items():
            self._read(part, low, min(at.get(part, low), high), suspects)
        totals_of = self._look_through(suspects)
        self._judge(suspects)
        self._check_totals(totals_of)
        return self._result

    # From the log to Redis.

    def _read(self, part: positions.TopicPart, low: int, end: int, suspects: Suspects) -> None:
        chunk: list[Change[Any]] = []
        size = self._pace.batch
        records = read_between(self._consumer, {part: low}, {part: end}, size)
        for raw in records if low < end else ():
            try:
                change = read_record(
                    raw.key, raw.value, raw.headers, self._view.states, self._view.project
                )
            except Unreadable:
                continue
            if change is not None:
                chunk.append(change)
            if len(chunk) >= size:
                self._compare(chunk, suspects)
                chunk = []
        self._compare(chunk, suspects)

    def _compare(self, chunk: Sequence[Change[Any]], suspects: Suspects) -> None:
        """An older record of an aggregate suspects it, a newer one that matches acquits it."""
        self._pace.spend(len(chunk))
        newest = fold(chunk)
        self._deleted.difference_update(change.id for change in newest)
        self._deleted.update(change.id for change in newest if change.row is None)
        fresh = [change for change in newest if change.id not in self._seen]
        self._seen.update(change.id for change in fresh)
        self._sample.offer(change.id for change in fresh)
        if self._sample.size is not None:
            return  # who is in the sample is known at the end
        self._result.checked += len(fresh)
        rows = {change.id: change.row for change in newest}
        stands = drive(self._line, self._view.pieces(self._keys, rows))
        for identity, row in rows.items():
            if stands[identity] == self._view.expected(row):
                suspects.pop(identity, None)
            else:
                suspects.setdefault(identity, set())

    # From Redis to the log.

    def _look_through(self, suspects: Suspects) -> dict[str, set[str]]:
        """Suspects what stands without an aggregate; returns users, with the rankings they stand in."""
        users: defaultdict[str, set[str]] = defaultdict(set)
        strays = Sample(self._sample.size)
        aliens: Suspects = {}
        for page in generations.pages(self._line, self._keys):
            self._pace.spend(len(page))
            for name, member in self._elements(page):
                self._look_at(name, member, aliens, users)
        strays.offer(aliens)
        chosen = strays.ids if strays.size is not None else aliens
        suspects.update({identity: aliens[identity] for identity in chosen})
        if self._sample.size is not None:
            suspects.update({identity: set() for identity in self._sample.ids})
            self._result.checked += len(self._sample.ids)
            some = Sample(self._sample.size)
            some.offer(users)
            return {user: users[user] for user in some.ids}
        return users

    def _elements(self, page: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Keys without their stem; of the sorted sets each member."""
        parsed = {key: kind for key in page if (kind := self._keys.kind_of(key)) is not None}
        zsets = [key for key, kind in parsed.items() if kind.type == "zset" and kind.lasting]
        members = self._line.run([("ZRANGE", key, 0, -1) for key in zsets]) if zsets else []
        for key, kind in parsed.items():
            if kind.lasting and kind.type != "zset":
                yield key.removeprefix(self._keys.stem), ""
        for key, found in zip(zsets, members, strict=True):
            for member in found:
                yield key.removeprefix(self._keys.stem), member

    def _look_at(
        self, name: str, member: str, aliens: Suspects, users: dict[str, set[str]]
    ) -> None:
        parsed = self._keys.parse(self._keys.stem + name)
        if parsed is None:
            return
        kind, identity = parsed
        unit = self._view.unit_of(kind.name, identity, member)
        if self._view is ORDERS:
            what, _, owner = unit.partition(" ")
            user = identity.partition("/")[0]
            if what == "user":
                place = owner
                currencies = users[owner]
                if kind.name == "top-spent":
                    currencies.add(identity)
            else:
                place = user if kind.name == "order" else owner
                self._suspect_order(kind.name, owner, user, aliens)
        else:
            place = unit
            if unit not in self._seen:
                aliens.setdefault(unit, set())
        if not name.startswith(f"{{{self._view.name}-{bucket_of(place)}}}:"):
            drift = Drift(
                Level.VIEW, Kind.ALIEN, self._view.name, unit, None, name, stray=(name, member)
            )
            self._result.drifts.append(drift)

    def _suspect_order(self, kind: str, order_id: str, user: str, aliens: Suspects) -> None:
        """Whose an order is, says its newest record; two rows of it are one too many, and so is one of a
        deleted order, which is not found by its place.
        """
        if kind == "order":
            self._rows_under[order_id].add(user)
        is_known = order_id in self._seen and order_id not in self._deleted
        if not is_known or len(self._rows_under.get(order_id, ())) > 1:
            aliens.setdefault(order_id, set())

    # What is certain.

    def _judge(self, suspects: Suspects) -> None:
        left = {one: under | self._rows_under.get(one, set()) for one, under in suspects.items()}
        for look in range(LOOKS):
            if not left:
                return
            if look:
                time.sleep(PAUSE_S)
            left = self._judge_once(left)
        self._result.open += len(left)

    def _judge_once(self, suspects: Suspects) -> Suspects:
        """Returns those of whom nothing can be said yet."""
        left: Suspects = {}
        for ids in _chunks(sorted(suspects)):
            first = look_up(self._settings, self._view, ids, self._consumer)
            rows = {i: _newest_row([one.change for one in first[i]]) for i in ids}
            (at,) = drive(self._line, positions.read([self._keys]))
            stands = drive(self._line, self._view.pieces(self._keys, rows))
            records = look_up(self._settings, self._view, ids, self._consumer)
            for identity in ids:
                applied = at.get(partition_of(self._settings, self._view, identity), 0)
                verdict, wanted = judge(
                    stands[identity], applied, records[identity], self._view.expected
                )
                others = self._others(identity, suspects[identity], wanted)
                if verdict is Verdict.OPEN:
                    left[identity] = suspects[identity]
                elif verdict is Verdict.WRONG or others:
                    kind = _kind(stands[identity], wanted, others)
                    self._add(kind, identity, wanted, stands[identity], strays=others)
        return left

    def _others(self, identity: str, under: set[str], wanted: Mapping[str, Any]) -> tuple[str, ...]:
        """Users under whom an order stands still, and does not belong."""
        if not under:
            return ()
        row = wanted["row"]
        wrong = sorted(under - {row["user_id"]} if row else under)
        keys = [self._keys.key("order", bucket_of(u), f"{u}/{identity}") for u in wrong]
        there = self._line.run([("EXISTS", key) for key in keys]) if keys else []
        return tuple(user for user, one in zip(wrong, there, strict=True) if one)

    # Totals.

    def _check_totals(self, users: Mapping[str, set[str]]) -> None:
        for user, currencies in sorted(users.items()):
            self._pace.spend(1)
            self._result.checked += 1
            part = None
            for _ in range(LOOKS):
                part = drive(self._line, user_at_once(self._keys, user, (), currencies))
                if part is not None:
                    break
            if part is None:
                self._result.open += 1
                continue
            wanted = totals(part.rows.values())
            if not wanted.is_same(part.stands):
                rankings = tuple(sorted(currencies))
                self._add(Kind.TOTALS, user, _plain(wanted), _plain(part.stands), strays=rankings)

    def _add(
        self, kind: Kind, key: str, expected: Any, found: Any, strays: tuple[str, ...] = ()
    ) -> None:
        drift = Drift(Level.VIEW, kind, self._view.name, key, expected, found, strays=strays)
        self._result.drifts.append(drift)


def _plain(one: Totals) -> dict[str, Any]:
    return {
        "sums": one.sums,
        "listed": sorted(one.listed),
        "orders": one.orders,
        "spent": one.spent,
    }


def _newest_row(changes: Sequence[Change[Any]]) -> Any:
    folded = fold(changes)
    return folded[0].row if folded else None


def _kind(stands: Mapping[str, Any], wanted: Mapping[str, Any], others: tuple[str, ...]) -> Kind:
    if wanted["row"] is None or (others and stands == wanted):
        return Kind.ALIEN
    return Kind.MISSING if stands["row"] is None else Kind.DIFFERENT


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), generations.PAGE):
        yield ids[start : start + generations.PAGE]
