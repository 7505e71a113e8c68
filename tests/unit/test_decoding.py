"""Decoding is total: every byte string gives a value or ``DecodeError``, and no code decodes past it."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoding import DecodeError, decode_json, decode_object, decoder, whole_number
from schemas.parking import decode_action, decode_notice, decode_parked
from schemas.records import EventRecord, decode_command, decode_event, decode_outcome
from schemas.saga import SagaState
from schemas.upcasting import Reader, StateReader

PRODUCT = (
    *("commands", "eventstore", "orderflow", "payments", "processors", "readmodels"),
    *("runtime", "sagas", "schemas", "sync", "verification", "webhooks"),
)
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "any": decode_json,
    "object": decode_object,
    "command": decode_command,
    "event": decode_event,
    "outcome": decode_outcome,
    "parked": decode_parked,
    "action": decode_action,
    "notice": decode_notice,
    "state": StateReader(SagaState).read,
    "reader": lambda value: Reader(SagaState).read(value, 1),
    "struct": decoder(EventRecord),
}


def nested(depth: int, around: bytes) -> bytes:
    return around % (b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("depth", [900, 1_100, 100_000])
@pytest.mark.parametrize("around", [b"%b", b'{"type":%b}', b'{"unknown":%b}', b'{"state":%b}'])
def test_json_of_any_depth_gives_a_value_or_a_decode_error(
    name: str, depth: int, around: bytes
) -> None:
    try:
        DECODERS[name](nested(depth, around))
    except DecodeError:
        return


@pytest.mark.parametrize("name", DECODERS)
@given(value=st.binary() | st.text().map(str.encode) | st.integers().map(lambda n: b"%d" % n))
def test_any_bytes_give_a_value_or_a_decode_error(name: str, value: bytes) -> None:
    try:
        DECODERS[name](value)
    except DecodeError:
        return


@pytest.mark.parametrize(
    "value", [b'{"v":%b}' % (b"9" * 5_000), b"1e999", b'"\\ud800"', b"\xff", b""]
)
def test_numbers_out_of_range_and_broken_text_are_decode_errors(value: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_json(value)


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_whole_number_is_read_from_text_and_bytes(number: int) -> None:
    assert whole_number(str(number)) == whole_number(b"%d" % number) == number


@pytest.mark.parametrize(
    "text", [None, "", "-1", "+1", " 1", "1.0", "²", "٣", b"\xb2", "9" * 5_000, "1_0"]
)
def test_anything_else_is_no_number(text: str | bytes | None) -> None:
    assert whole_number(text) is None


def test_nothing_in_the_product_decodes_json_past_it() -> None:
    found = [
        f"{path}:{node.lineno}"
        for package in PRODUCT
        for path in Path(package).rglob("*.py")
        if path != Path("schemas/decoding.py") and "contract" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("decode", "Decoder")
        and ast.unparse(node.value) in ("msgspec.json", "json")
    ]
    assert found == []
