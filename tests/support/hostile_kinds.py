"""Records that nobody should send, by kind, for any topic: generated, not listed.

``KINDS`` maps each kind to a strategy of ``Hostile`` records around a valid one. A kind is a way to be wrong
(depth, size, headers, keys, versions, …); what exactly is wrong is drawn.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from hypothesis import strategies as st

from schemas import headers

MIB: Final = 1024 * 1024
SHOWN_BYTES: Final = 60
Marks = list[tuple[str, bytes | None]]

NUMBERED: Final = (
    headers.REPLY_PARTITION,
    headers.AGGREGATE_VERSION,
    headers.OCCURRED_AT_MS,
    headers.ERROR_OFFSET,
    headers.ERROR_PARTITION,
    headers.ERROR_TIMESTAMP,
    headers.ERROR_ATTEMPT,
)
TEXTS: Final = (
    headers.CORRELATION_ID,
    headers.CAUSATION_ID,
    headers.TRACEPARENT,
    headers.ANSWER_TO,
    headers.ERROR_CODE,
    headers.ERROR_STAGE,
    headers.ERROR_TOPIC,
    headers.ERROR_HOLDS_KEY,
    "x-unknown",
)


class Hostile(NamedTuple):
    """One record, wherever it is sent."""

    key: bytes | None
    value: bytes | None
    headers: Marks

    def __repr__(self) -> str:
        """Return its parts, each cut: a failing test shows hundreds of records, some of megabytes."""
        headers = [(name, _cut(value)) for name, value in self.headers[:5]]
        return f"Hostile({_cut(self.key)}, {_cut(self.value)}, {headers})"


Strategy = st.SearchStrategy[Hostile]
Kind = Callable[[bytes, dict[str, Any]], Strategy]
"""From the key and the JSON of a valid record."""


def _cut(part: bytes | None) -> str:
    if part is None or len(part) <= SHOWN_BYTES:
        return repr(part)
    return f"{part[:SHOWN_BYTES]!r}… of {len(part):,} bytes"


def nested(depth: int) -> bytes:
    """Return JSON of this depth."""
    return b"[" * depth + b"]" * depth


def _json(valid: dict[str, Any], **changes: Any) -> bytes:
    return msgspec.json.encode(valid | changes)


def _raw_bytes(key: bytes, _: dict[str, Any]) -> Strategy:
    values = st.binary(max_size=64) | st.sampled_from([b"", b"null", b"[]", b"{}", b"\x00", b"1"])
    return values.map(lambda value: Hostile(key, value, []))


def _depth(key: bytes, valid: dict[str, Any]) -> Strategy:
    depths = st.integers(200, 1_200) | st.just(100_000)
    fields = st.sampled_from(["x-unknown", *valid])
    return st.builds(
        lambda depth, field: Hostile(key, _json(valid, **{field: msgspec.Raw(nested(depth))}), []),
        depths,
        fields,
    )


def _field(key: bytes, valid: dict[str, Any]) -> Strategy:
    """A field of a wrong type, or missing."""
    wrong: st.SearchStrategy[Any] = st.sampled_from(
        [None, 1.5, "", "\x00", [], {}, True, -1, 2**63, "é" * 300]
    )
    return st.builds(
        lambda field, value: Hostile(key, _json(valid, **{field: value}), []),
        st.sampled_from(list(valid)),
        wrong,
    ) | st.sampled_from(list(valid)).map(
        lambda field: Hostile(key, _json({k: v for k, v in valid.items() if k != field}), [])
    )


def _versions(key: bytes, valid: dict[str, Any]) -> Strategy:
    fields = [name for name in valid if name.endswith("version")] or ["version"]
    numbers = st.sampled_from([0, -1, 99, 2**31, 2**53 + 1, 2**62]) | st.integers(2, 10**9)
    return st.builds(
        lambda field, number: Hostile(key, _json(valid, **{field: number}), []),
        st.sampled_from([*fields, "schema_version", "state_version"]),
        numbers,
    )


def _size(key: bytes, valid: dict[str, Any]) -> Strategy:
    """Around each limit; one repeated byte, which any compression makes small."""
    sizes = st.sampled_from([MIB // 2, MIB, 7 * MIB, 8 * MIB, 9 * MIB, 20 * MIB])
    return st.builds(
        lambda size, field: Hostile(
            key, b"x" * size if field is None else _json(valid, **{field: "x" * size}), []
        ),
        sizes,
        st.sampled_from([None, "x-unknown", *valid]),
    )


def _numbers_in_headers(key: bytes, valid: dict[str, Any]) -> Strategy:
    texts = st.sampled_from(
        [b"9" * 5_000, b"-1", b"", None, "²".encode(), b"1e9", b"9" * 19, b"253402300800000"]
    )
    pairs = st.lists(st.tuples(st.sampled_from(NUMBERED), texts), min_size=1, max_size=3)
    return pairs.map(lambda marks: Hostile(key, _json(valid), marks))


def _texts_in_headers(key: bytes, valid: dict[str, Any]) -> Strategy:
    texts = st.sampled_from(
        [b"\xff", None, b"\x00", b"\x1b]0;x\x07", b"true", b'"' * 100_000, b"y" * (9 * MIB)]
    )
    pairs = st.lists(st.tuples(st.sampled_from(TEXTS), texts), min_size=1, max_size=2)
    return pairs.map(lambda marks: Hostile(key, _json(valid), marks))


def _many_headers(key: bytes, valid: dict[str, Any]) -> Strategy:
    counts = st.integers(1_000, 20_000)
    return counts.map(lambda n: Hostile(key, _json(valid), [(f"h{i}", b"1") for i in range(n)]))


def _keys(_: bytes, valid: dict[str, Any]) -> Strategy:
    keys = st.sampled_from(
        [
            None,
            b"",
            b"\xff",
            b"a/b",
            b"/",
            b"a/b/c",
            b"{a}",
            b"\x00mark/x",
            b"k" * MIB,
            b"\n\x1b[2J",
        ]
    )
    return keys.map(lambda key: Hostile(key, _json(valid), []))


def _tombstone(key: bytes, _: dict[str, Any]) -> Strategy:
    versions = st.sampled_from([None, b"0", b"1", b"9" * 5_000, b"x", b"9007199254740993"])
    return versions.map(
        lambda version: Hostile(
            key, None, [] if version is None else [(headers.AGGREGATE_VERSION, version)]
        )
    )


KINDS: Final[dict[str, Kind]] = {
    "bytes": _raw_bytes,
    "depth": _depth,
    "field": _field,
    "versions": _versions,
    "size": _size,
    "numbers in headers": _numbers_in_headers,
    "texts in headers": _texts_in_headers,
    "many headers": _many_headers,
    "keys": _keys,
    "tombstone": _tombstone,
}
"""Kind → strategy of its records."""


def any_hostile(key: bytes, valid: dict[str, Any]) -> Strategy:
    """A record of any kind."""
    return st.one_of([kind(key, valid) for kind in KINDS.values()])
