"""One record as the bytes that a fuzzer mutates, and back.

    key 1F [header name 1F header value 1F]* value

A part that is a single 00 is None: no key, a header without a value, a tombstone.
"""

from typing import Final

from runtime.records import Headers, IncomingRecord

SEPARATOR: Final = b"\x1f"
NONE: Final = b"\x00"
OFFSET: Final = 41
SENT_AT_MS: Final = 1_767_268_800_000


def packed(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Return the bytes of a record, as ``unpacked`` reads them."""
    parts = [key]
    for name, content in headers:
        parts += [name.encode(), content.encode() if isinstance(content, str) else content]
    return SEPARATOR.join(NONE if part is None else part for part in (*parts, value))


def unpacked(data: bytes, topic: str) -> IncomingRecord:
    """Return the record that these bytes stand for, on partition 0 of ``topic``."""
    key, *rest = [None if part == NONE else part for part in data.split(SEPARATOR)]
    value = rest.pop() if rest else None
    headers: Headers = [
        ((name or b"").decode("utf-8", "replace"), content)
        for name, content in zip(rest[::2], rest[1::2], strict=False)
    ]
    return IncomingRecord(topic, 0, OFFSET, SENT_AT_MS, key, value, headers)
