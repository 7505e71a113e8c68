"""Topics and a Redis that are full of what no release of ours writes, and of what a newer one may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from readmodels.keys import Keys, bucket_of, views_key
from readmodels.orders import document_key, place_key
from runtime import kafka
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.topics import AGGREGATES

GOLDEN: Final = Path(__file__).parents[1] / "golden"

Headers = list[tuple[str, str | bytes | None]]
Record = tuple[str | bytes | None, bytes | None, Headers]

EVIL: Final = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e\u200b[red]:smile:[/nothing]\r\n"
DEEP: Final = "[" * 100_000 + "]" * 100_000
VALUES: Final[tuple[bytes | None, ...]] = (
    None,
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"null",
    b"1",
    b"[]",
    b"{}",
    b'{"version": 0}',
    b'{"version": -1}',
    b'{"version": 1e999}',
    b'{"version": 99999999999999999999999}',
    b'{"version": "1"}',
    b'{"version": 1, "type"',
    DEEP.encode(),
    json.dumps(EVIL).encode(),
)
KEYS: Final = ("o-1", "other", None, b"", b"\xff\xfe", EVIL, "o-1/o-1", "o-1/cli-1")
STRANGE: Final[tuple[Any, ...]] = (
    None,
    [],
    {},
    -1,
    2**70,
    1e300,
    253_402_300_800_000,
    EVIL,
    "newer_value",
    True,
)
HEADERS: Final[tuple[Headers, ...]] = (
    [],
    [
        ("correlation-id", EVIL.encode()),
        ("aggregate-version", b"9" * 5_000),
        ("orderflow.errors.offset", b"9" * 5_000),
        ("orderflow.errors.timestamp", b"x"),
    ],
    [("correlation-id", b"o-1"), ("answer-to", b"\xff"), ("orderflow.errors.holds-key", b"true")],
)


def mutations(document: Any) -> Iterator[Any]:
    """Yield the document with each of its fields removed or replaced by each strange value."""
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        rest = {other: kept for other, kept in document.items() if other != name}
        yield rest
        for strange in STRANGE:
            yield rest | {name: strange}
        for changed in mutations(value):
            yield rest | {name: changed}


def golden(folder: str, name: str) -> Any:
    return json.loads((GOLDEN / folder / f"{name}.json").read_text())


def garbage() -> Iterator[Record]:
    for key in KEYS:
        for value in VALUES:
            yield key, value, HEADERS[0]
    for headers in HEADERS[1:]:
        yield "o-1", b"garbage", headers
        yield "o-1", None, headers


def mutated(key: str, documents: list[Any]) -> Iterator[Record]:
    for document in documents:
        for changed in mutations(document):
            yield key, json.dumps(changed).encode(), []


def dead_letters() -> Iterator[Record]:
    """Letters with each header removed, doubled, or replaced by what is none."""
    letter = golden("records", "DeadLetter.v1.2")
    for changed in mutations(letter["headers"]):
        headers: Headers = [(n, str(v).encode("utf-8", "replace")) for n, v in changed.items()]
        yield letter["key"], b"{", headers
    yield EVIL, EVIL.encode(), [(n, str(v).encode()) for n, v in letter["headers"].items()]
    yield from garbage()


class HostileTopics:
    """Writes records onto any topic, on the partition of their key."""

    def __init__(self, settings: Settings) -> None:
        self.topics = topics_of(settings)
        self._producer = Producer(kafka.producer(settings))
        self._compacted = {
            spec.name for spec in self.topics.specs() if "compact" in spec.config["cleanup.policy"]
        }

    def put(self, topic: str, records: Iterator[Record]) -> None:
        failed: list[Any] = []

        def note(error: Any, _: object) -> None:
            if error is not None:
                failed.append(error)

        for key, value, headers in records:
            if key is None and topic in self._compacted:
                continue  # the broker refuses it, and with it all of its batch
            self._producer.produce(topic, value, key, headers=headers, on_delivery=note)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0
        assert not failed, failed[0]

    def aggregate_topics(self) -> Iterator[str]:
        for aggregate in AGGREGATES:
            yield self.topics.events(aggregate)
            yield self.topics.history(aggregate)
            yield self.topics.outcomes(aggregate)
            yield self.topics.parked(aggregate)
            yield self.topics.commands(aggregate)


ROWS: Final[dict[str, dict[str, str]]] = {
    "orders": {
        "version": "1", "status": "created", "user_id": "o-1", "currency": "JPY", "total": "1999",
        "spent": "1999", "created_at_ms": "1767268800000", "updated_at_ms": "1767268800000",
        "listed": "001767268800000:o-1", "lines": '[{"sku":"urn:id:42","quantity":1,"unit_price":1999}]',
    },
    "users": {
        "version": "1", "status": "active", "name": "Ada", "registered_at_ms": "1767268800000",
        "updated_at_ms": "1767268800000",
    },
    "stock": {
        "version": "1", "description": "Mug", "on_hand": "1", "reserved": "0", "available": "1",
        "threshold": "1", "updated_at_ms": "1767268800000",
    },
    "sagas": {
        "version": "1", "saga": "create-order", "status": "running", "correlation_id": "o-1",
        "started_at_ms": "1767268800000", "updated_at_ms": "1767268800000",
        "steps": '[{"name":"s","status":"running","commands":1,"accepted":0,"refused":0,"attempt":1,'
        '"started_at_ms":1767268800000}]',
    },
}  # fmt: skip
"""The row of ``o-1`` in each view, as a projector writes it."""

TEXTS: Final = (
    "",
    "x",
    "1e3",
    "-1",
    "9" * 30,
    "9" * 5_000,
    "[",
    DEEP,
    EVIL,
    "newer_value",
    "\udcff",
)
"""What stands in a field instead."""


def row_key(prefix: str, view: str) -> str:
    keys = Keys(prefix, view, 1)
    bucket = bucket_of("o-1")
    match view:
        case "orders":
            return document_key(keys, "o-1", "o-1")
        case "users":
            return keys.key("user", bucket, "o-1")
        case "stock":
            return keys.key("sku", bucket, "o-1")
        case _:
            return keys.key("saga", bucket, "o-1")


def fill(redis: Any, prefix: str) -> None:
    """Write every row of ``o-1`` with its places in lists and rankings."""
    orders, bucket = Keys(prefix, "orders", 1), bucket_of("o-1")
    for view, row in ROWS.items():
        redis.hset(row_key(prefix, view), mapping=row)
        redis.hset(views_key(prefix), view, "1")
    redis.set(place_key(orders, "o-1"), "o-1/JPY")
    redis.zadd(orders.key("list", bucket, "o-1"), {"001767268800000:o-1": 0})
    redis.hset(orders.key("user", bucket, "o-1"), mapping={"orders": "1", "spent:GBP": "1999"})
    redis.zadd(orders.key("top-orders", bucket), {"o-1": 1})
    redis.zadd(orders.key("top-spent", bucket, "GBP"), {"o-1": 1999})
    redis.zadd(Keys(prefix, "stock", 1).key("low", bucket), {"o-1": 1})
    redis.zadd(Keys(prefix, "sagas", 1).key("by-status", bucket), {"o-1": 2 * 10**14})


def damages(redis: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Damage one thing at a time, yield the key and what is wrong, and mend it again."""
    names = [key.decode() for key in redis.keys(f"{prefix}:*")]
    for key in names:
        kind, kept = redis.type(key), redis.dump(key)
        for wrong in (b"string", b"zset", b"hash"):
            if wrong != kind:
                redis.delete(key)
                _write(redis, key, wrong)
                yield key, f"a {wrong.decode()}"
        for field in redis_fields(redis, key, kept):
            for text in TEXTS:
                redis.hset(key, field, text.encode("utf-8", "surrogateescape"))
                yield key, f"{field.decode()} is {text[:20]!r}"
            redis.hdel(key, field)
            yield key, f"without {field.decode()}"
            redis.restore(key, 0, kept, replace=True)
        redis.restore(key, 0, kept, replace=True)


def redis_fields(redis: Any, key: str, kept: bytes) -> list[bytes]:
    redis.restore(key, 0, kept, replace=True)
    return list(redis.hkeys(key)) if redis.type(key) == b"hash" else []


def _write(redis: Any, key: str, kind: bytes) -> None:
    match kind:
        case b"string":
            redis.set(key, EVIL)
        case b"hash":
            redis.hset(key, EVIL, EVIL)
        case b"zset":
            redis.zadd(key, {EVIL: float("inf"), "no-colon": 1})
        case _:
            raise AssertionError(kind)
