"""The views in Redis against the reference, and their content as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis

from readmodels import SagaAnswer
from readmodels.keys import Keys
from readmodels.queries import Asking
from readmodels.reference import Reference
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from schemas.saga import ENDED, SagaStatus
from tests.support.events import Record
from tests.support.processes import environment

LIMIT = 1_000


def settings_for(servers: ServersAddress, prefix: str, home: Path, **more: str) -> Settings:
    """Settings of a test in this process, equal to its roles' environment."""
    return Settings.model_validate(environment(servers, prefix, home, **more))


def reference_of(records: Iterable[Record]) -> Reference:
    """The reference after these records."""
    reference = Reference()
    for record in records:
        reference.record(record.aggregate, record.key_bytes, record.value, record.headers)
    return reference


def differences(queries: Asking, reference: Reference) -> list[str]:
    """Every question whose answer is not the reference's; none, if all is well."""
    found: list[str] = []

    def compare(question: str, wanted: Any, got: Any) -> None:
        if got != wanted:
            found.append(f"{question}: {got!r}, not {wanted!r}")

    for order_id, order in reference.orders().items():
        compare(f"order {order_id}", order, queries.order(order_id))
    for sku, level in reference.stock().items():
        compare(f"stock {sku}", level, queries.stock(sku))
    users = reference.users()
    for user_id, user in users.items():
        compare(f"user {user_id}", user, queries.user(user_id))
        orders = all_orders_of(queries, user_id)
        compare(f"orders of {user_id}", reference.orders_of(user_id), orders)
    for currency in sorted({c for user in users.values() for c in user.spent} | {"EUR"}):
        wanted = reference.top_users("spent", currency)[:LIMIT]
        rows = queries.top_users("spent", currency, LIMIT)
        compare(f"top {currency}", wanted, [(row.user_id, row.value) for row in rows])
    rows = queries.top_users("orders", limit=LIMIT)
    wanted = reference.top_users("orders", "")[:LIMIT]
    compare("top by orders", wanted, [(row.user_id, row.value) for row in rows])
    sagas = reference.sagas()
    for saga_id, saga in sagas.items():
        compare(f"saga {saga_id}", saga, queries.saga(saga_id))
    for status in SagaStatus:
        wanted_sagas = sorted(
            (s for s in sagas.values() if s.status == status),
            key=lambda s: (s.updated_at_ms, s.saga_id),
            reverse=status in ENDED,
        )
        compare(f"sagas {status}", wanted_sagas[:LIMIT], list(queries.sagas(status.value, LIMIT)))
    compare("sagas", open_sagas(sagas.values())[:LIMIT], list(queries.sagas(limit=LIMIT)))
    low = [row.sku for row in queries.low_stock(LIMIT)]
    compare("low stock", reference.low_stock()[:LIMIT], low)
    return found


def open_sagas(sagas: Iterable[SagaAnswer]) -> list[SagaAnswer]:
    """Those that have not ended, in the order in which somebody has to look at them."""
    ranked = [SagaStatus.NEEDS_OPERATOR, SagaStatus.COMPENSATING, SagaStatus.RUNNING]
    return sorted(
        (saga for saga in sagas if saga.status in ranked),
        key=lambda s: (ranked.index(SagaStatus(s.status)), s.updated_at_ms, s.saga_id),
    )


def all_orders_of(queries: Asking, user_id: str, page: int = 7) -> list[str]:
    """All pages of a user's orders."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        answer = queries.orders_of(user_id, cursor, page)
        ids += [order.order_id for order in answer.orders]
        if answer.next is None:
            return ids
        cursor = answer.next


def content(client: redis.Redis, keys: Keys) -> dict[str, Any]:
    """What a generation says, key by key, without its stem; neither positions nor markers."""
    found: dict[str, Any] = {}
    for key in client.scan_iter(match=f"{keys.stem}*", count=1_000):
        kind = keys.kind_of(key)
        if kind is None or not kind.lasting:
            continue
        if kind.type == "hash":
            found[key.removeprefix(keys.stem)] = client.hgetall(key)
        elif kind.type == "zset":
            found[key.removeprefix(keys.stem)] = client.zrange(key, 0, -1, withscores=True)
        else:
            found[key.removeprefix(keys.stem)] = client.get(key)
    return found


def live_content(client: redis.Redis, settings: Settings, view: str) -> dict[str, Any]:
    """What the live generation of a view says."""
    generation = int(client.hget(f"{settings.topic_prefix}:views", view) or 1)
    return content(client, Keys(settings.topic_prefix, view, generation))
