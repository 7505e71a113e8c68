"""Records that no writer of the pipeline writes, but anyone who may produce can; drawn or listed by kind."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from confluent_kafka import Producer
from hypothesis import strategies as st

from runtime import kafka
from runtime.settings import Settings
from schemas.headers import AGGREGATE_VERSION, CORRELATION_ID, ERRORS

DEEP = b"[" * 100_000 + b"]" * 100_000
MB = 1_000_000

Hostile = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Key, value and headers."""

NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**400, 1.5, None, "1", True])
TEXTS = st.text(max_size=12) | st.sampled_from(["", "\x00", "9" * 5_000, "x" * 20_000, "²"])
VALUES: st.SearchStrategy[Any] = (
    NUMBERS | TEXTS | st.just([]) | st.dictionaries(st.text(max_size=4), NUMBERS, max_size=3)
)


def json_of(fields: dict[str, Any]) -> bytes:
    """JSON with numbers of any size."""
    return json.dumps(fields).encode()


def values(names: list[str]) -> st.SearchStrategy[bytes | None]:
    """Values that look like a record with these fields, more or less."""
    objects = st.dictionaries(st.sampled_from(names), VALUES, max_size=len(names)).map(json_of)
    nested = st.sampled_from(names).map(lambda name: b'{"%b":%b}' % (name.encode(), DEEP))
    return st.none() | st.binary(max_size=40) | objects | nested | st.just(DEEP)


KEYS = (
    st.none()
    | st.binary(max_size=20)
    | st.sampled_from([b"o-1", b"o-1/r-1", b"\xff", b"", b"x" * 100_000, b"a{b}", b"o-1/"])
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                AGGREGATE_VERSION,
                CORRELATION_ID,
                f"{ERRORS}timestamp",
                f"{ERRORS}partition",
                f"{ERRORS}offset",
                f"{ERRORS}topic",
                f"{ERRORS}attempt",
                f"{ERRORS}holds-key",
                "any",
            ]
        ),
        st.none()
        | st.binary(max_size=10)
        | st.sampled_from([b"9" * 5_000, b"1", b"\xff", b"-1", "²".encode(), b"y" * 100_000]),
    ),
    max_size=4,
)


def put(settings: Settings, topic: str, records: list[Hostile], partition: int = 0) -> None:
    """Write them as a client that knows nothing of the pipeline: large ones compress well."""
    options = kafka.producer(settings) | {"message.max.bytes": 50 * MB, "linger.ms": 0}
    failed: list[Any] = []
    producer = Producer(options)
    for key, value, headers in records:
        producer.produce(
            topic,
            value,
            key,
            partition,
            headers=list(headers),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.flush(30)  # each in a batch of its own: so large ones compress below the limit
    assert not failed, failed


def put_with_unreadable_header_name(
    settings: Settings, topic: str, key: str, value: bytes | None, partition: int = 0
) -> None:
    """No client for Python can write a header name that is not UTF-8; kcat can."""
    command = ["kcat", "-P", "-b", str(settings.kafka_bootstrap_servers), "-t", topic, "-Z"]
    command += ["-p", str(partition), "-K", "|", "-H", "any=1"]
    arguments: list[str | bytes] = [*command, "-H", b"\xff\xfe=2"]
    line = key.encode() + b"|" + (value or b"") + b"\n"  # -Z: without a value, a tombstone
    subprocess.run(arguments, input=line, check=True, timeout=60)
