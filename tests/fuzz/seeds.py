"""What fuzzing starts from: a record for every golden file, beside the corpus that earlier runs have kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fuzz.records import packed

GOLDEN: Final = Path("tests/golden")
CORPUS: Final = Path("tests/fuzz/corpus")
KEY: Final = b"order-1"


def golden_records() -> Iterator[bytes]:
    """Yield each golden record, packed; a file that holds key, value and headers keeps all three."""
    for file in sorted(GOLDEN.rglob("*.json")):
        text = file.read_bytes()
        whole = json.loads(text)
        if "headers" in whole and "key" in whole:
            value = whole.get("value")
            headers = list(whole["headers"].items())
            yield packed(whole["key"].encode(), None if value is None else value.encode(), headers)
        else:
            yield packed(KEY, text, [("correlation-id", b"checkout-7"), ("reply-partition", b"3")])


def kept(target: str) -> Iterator[bytes]:
    """Yield the inputs that earlier runs have kept for a target."""
    for file in sorted((CORPUS / target).glob("*")):
        yield file.read_bytes()
