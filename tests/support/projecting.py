"""The topics and the views of a test, with projectors as processes; and records to feed them with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from readmodels import Queries
from readmodels.reference import Reference
from runtime import topic_admin
from runtime.embedded import ServersAddress
from runtime.redis import connect
from schemas.order import OrderStatus
from schemas.saga import SagaStatus
from tests.support import events
from tests.support.commanding import eventually
from tests.support.events import EventProducer, Record
from tests.support.processes import RoleProcess, environment
from tests.support.views import differences, reference_of, settings_for

STATUSES: Final = list(OrderStatus)
CAUGHT_UP_S: Final = 60.0


class World:
    """The topics and views of one test, and what has been written so far. ``client``: to look into Redis
    with, for a cluster.
    """

    def __init__(
        self, servers: ServersAddress, prefix: str, home: Path, client: Any = None
    ) -> None:
        self.env = environment(servers, prefix, home)
        self.home = home
        self.settings = settings_for(servers, prefix, home)
        topic_admin.apply(self.settings)
        self.producer = EventProducer(self.settings)
        self.client: Any = connect(self.settings) if client is None else client
        self.queries = Queries(self.settings)
        self.written: list[Record] = []
        self._projectors = 0

    def commit(self, *records: Record) -> None:
        self.producer.commit(records)
        self.written += records

    def projector(self) -> RoleProcess:
        self._projectors += 1
        return RoleProcess("readmodels", self.env, self.home / f"projector-{self._projectors}.log")

    def reference(self) -> Reference:
        return reference_of(self.written)

    def caught_up(self) -> bool:
        """Every position is at the end of its partition, to the offset, and the end is not an old one: a
        transaction that is committed is seen when its markers are written, a moment later.
        """
        lags = self.queries.lag()
        known = sum(len(status.positions) for status in self.queries.status())
        reached = self.producer.reached
        return known == len(lags) and all(
            row.position == row.end >= reached.get((row.topic, row.partition), 0) for row in lags
        )

    def wait(self) -> None:
        eventually(self.caught_up, CAUGHT_UP_S, every=0.1)

    def check(self) -> None:
        """All caught up, and every answer is the reference's."""
        self.wait()
        assert differences(self.queries, self.reference()) == []

    def close(self) -> None:
        self.queries.close()
        self.client.close()


def life(count: int, *, users: int = 7, start: int = 0) -> list[Record]:
    """Orders from their creation to different ends, and what stands beside them."""
    records: list[Record] = []
    for number in range(start, start + count):
        records += [
            events.order(
                f"o-{number}",
                version,
                user=f"u-{number % users}",
                status=STATUSES[(version - 1) % len(STATUSES)],
                total=number * 10,
                currency="EUR" if number % 3 else "USD",
                created=events.NOON_MS + number // 2,
            )
            for version in range(1, 2 + number % 4)
        ]
        records.append(events.stock(f"s-{number % 50}", 1 + number // 50, on_hand=number % 9))
        records.append(Record("inventory", f"s-{number % 50}/r-{number}", None))
        records.append(events.user(f"u-{number % users}", 1 + number // users))
        standing = list(SagaStatus)[number % len(SagaStatus)]
        records.append(events.saga(f"o-{number}", 1 + number % 3, status=standing))
    return records
