"""The comparison of a rebuilt generation with a live one that is ahead of it names what differs, all of it
and nothing else: what only moves is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from readmodels.comparison import compare
from readmodels.filling import Note
from readmodels.keys import Keys
from readmodels.records import Change, read
from readmodels.steps import drive
from readmodels.views import ORDERS
from runtime.embedded import ServersAddress
from runtime.redis import Line
from schemas.order import OrderStatus
from tests.support import events
from tests.support.events import Record

pytestmark = pytest.mark.integration


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records of a few orders of two users, in order: changes and deletions."""
    versions: dict[str, int] = {}
    log: list[Record] = []
    for _ in range(draw(st.integers(0, 14))):
        order_id = draw(st.sampled_from(["a", "b", "c", "d"]))
        version = versions[order_id] = versions.get(order_id, 0) + 1
        if draw(st.integers(0, 5)) == 0:
            log.append(events.tombstone("order", order_id, version))
            continue
        status = draw(st.sampled_from(OrderStatus))
        user = "u-1" if order_id in "ab" else "u-2"
        total = draw(st.integers(0, 5))
        log.append(events.order(order_id, version, user=user, status=status, total=total))
    return log


@dataclass
class Both:
    """Two generations of the view of orders, and how far each is; `comparison.Stage`."""

    line: Line
    old: Keys
    new: Keys
    log: Sequence[Record] = ()
    at: dict[Keys, int] = field(default_factory=dict)

    def bring(self, keys: Keys, to: int) -> list[Change[Any]]:
        """Apply records up to there; returns their changes."""
        changes: list[Change[Any]] = []
        for record in self.log[self.at.get(keys, 0) : to]:
            change = _read(record)
            changes.append(change)
        for change in changes:
            drive(self.line, ORDERS.apply(keys, [change]))
        self.at[keys] = max(self.at.get(keys, 0), to)
        return changes

    def meet(self) -> dict[str, int]:
        """The live one goes on to where the other is, if it is not there."""
        self.bring(self.old, self.at[self.new])
        return {"t:0": self.at[self.new]}

    def advance(self, note: Note) -> None:
        """The new one goes on to the end, one record after the other."""
        while self.at[self.new] < len(self.log):
            record = self.log[self.at[self.new]]
            change = _read(record)
            note(ORDERS, self.new, [change])
            self.bring(self.new, self.at[self.new] + 1)

    def keys(self, keys: Keys) -> list[str]:
        """Names of what is there."""
        return sorted(self.line.run([("KEYS", f"{keys.stem}*")])[0])

    def content(self, keys: Keys) -> dict[tuple[str, str], Any]:
        """Everything that lasts, each member by itself."""
        found: dict[tuple[str, str], Any] = {}
        for key in self.keys(keys):
            kind, name = keys.kind_of(key), key.removeprefix(keys.stem)
            if kind is None or not kind.lasting:
                continue
            if kind.type == "zset":
                flat = self.line.run([("ZRANGE", key, 0, -1, "WITHSCORES")])[0]
                found |= {(name, m): s for m, s in zip(flat[::2], flat[1::2], strict=True)}
            elif kind.type == "hash":
                flat = self.line.run([("HGETALL", key)])[0]
                found[name, ""] = dict(zip(flat[::2], flat[1::2], strict=True))
            else:
                found[name, ""] = self.line.run([("GET", key)])[0]
        return found

    def clear(self) -> None:
        """Both are empty."""
        for key in [*self.keys(self.old), *self.keys(self.new)]:
            self.line.run([("DEL", key)])
        self.at = {self.old: 0, self.new: 0}


@pytest.fixture
def both(servers: ServersAddress, prefix: str) -> Iterator[Both]:
    line = Line(servers.redis_url)
    one = Both(line, Keys(prefix, "orders", 1), Keys(prefix, "orders", 2))
    yield one
    one.clear()
    line.close()


@given(log=logs(), data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_differs_is_named_and_what_moves_is_not(
    both: Both, log: list[Record], data: st.DataObject
) -> None:
    both.clear()
    both.log = log
    both.bring(both.new, data.draw(st.integers(0, len(log)), label="rebuilt at"))
    at = data.draw(st.integers(both.at[both.new], len(log)), label="live at")
    both.bring(both.old, at)
    for _ in range(data.draw(st.integers(0, 2), label="damages")):
        _damage(both, data)

    found = compare(both.line, ORDERS, both.old, both.new, both)

    assert found.moving == 0
    both.bring(both.old, len(log))
    both.advance(lambda *_: None)
    live, rebuilt = both.content(both.old), both.content(both.new)
    wanted = {key for key in {*live, *rebuilt} if live.get(key) != rebuilt.get(key)}
    assert {(one.key, one.member) for one in found.differing} == wanted
    assert found.differences == len(wanted)
    for one in found.differing:
        assert one.live == live.get((one.key, one.member))
        assert one.rebuilt == rebuilt.get((one.key, one.member))


def _read(record: Record) -> Change[Any]:
    """What it means to the view."""
    value, states = record.value, ORDERS.states
    change: Change[Any] | None = read(
        record.key_bytes, value, record.headers, states, ORDERS.project
    )
    assert change is not None
    return change


def _damage(both: Both, data: st.DataObject) -> None:
    """Somebody writes into the live one, or puts something there. Not into the place of an order: that leads
    what is applied later astray, and what goes wrong after a look is for the next one.
    """
    alien = both.old.key("place", 3, "alien")
    lasting = [
        key
        for key in both.keys(both.old)
        if (kind := both.old.kind_of(key)) and kind.lasting and kind.type != "string"
    ]
    key = data.draw(st.sampled_from([*lasting, alien]))
    kind = both.old.kind_of(key)
    assert kind is not None
    if kind.type == "hash":
        both.line.run([("HSET", key, "alien", "1")])
    elif kind.type == "zset":
        both.line.run([("ZADD", key, 77, "alien")])
    else:
        both.line.run([("SET", key, "alien/EUR")])
