"""Decoding is total: every byte string gives a value or ``DecodeError``, and no code decodes past it."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from commands.free_json import FreeJson
from schemas.decoding import DecodeError, decode_json, decode_object, decoder, whole_number
from schemas.parking import decode_action, decode_notice, decode_parked
from schemas.records import EventRecord, decode_command, decode_event, decode_outcome
from schemas.saga import SagaState
from schemas.upcasting import Reader, StateReader

ROOT = Path(__file__).parents[2]
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


KINDS_OF_THE_PRODUCT = """
import importlib, sys
from msgspec import inspect
from schemas import decoding
kinds = set()
original = decoding.decoder
decoding.decoder = lambda kind: kinds.add(kind) or original(kind)
for name in sys.stdin.read().split():
    importlib.import_module(name)
from sagas import AGGREGATES
for each in AGGREGATES:
    kinds |= {*each.events, each.root_type} | ({each.part_type} if each.part_type else set())
bare = set()
for kind in kinds:
    for part in decoding.parts_of(inspect.type_info(kind), set()):
        fields = part.fields if isinstance(part, inspect.StructType) else ()
        of_it = [(f.name, f.type) for f in fields] or [("", part)]
        for field, inner in of_it:
            for number in decoding.parts_of(inner, set()):
                if isinstance(number, inspect.IntType) and None in (number.ge, number.le):
                    bare.add(f"{kind}: {getattr(part, 'cls', '')} {field}")
print(len(kinds), *sorted(bare), sep="\\n")
"""


def test_no_whole_number_of_the_product_is_decoded_without_bounds() -> None:
    """One of 70 bits passes Python and fails far from its record, in a client library, database or script."""
    files = (path for name in PRODUCT for path in (ROOT / name).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    asked = [sys.executable, "-c", KINDS_OF_THE_PRODUCT]
    found = subprocess.run(
        asked, input=" ".join(names), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.returncode == 0, found.stderr
    number, *bare = found.stdout.splitlines()
    assert int(number) > 50
    assert not bare


@pytest.mark.parametrize("text", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"a\xf0\x9f"])
@pytest.mark.parametrize("field", ["data", "state"])
def test_what_is_kept_as_it_came_is_utf8(field: str, text: bytes) -> None:
    """It is passed on without being looked at: into views, to webhooks, to people."""
    event = b'{"type":"X","id":"a:0","version":1,"occurred_at_ms":1,"%b":{"a":"%b"}}'
    whole = decode_event(event % (field.encode(), "é".encode()))
    assert bytes(getattr(whole, field)) == '{"a":"é"}'.encode()
    with pytest.raises(DecodeError, match="UTF-8"):
        decode_event(event % (field.encode(), text))


@given(st.integers(4_150, 4_350), st.booleans(), st.booleans())
def test_a_whole_number_that_a_stream_takes_can_be_read_again(
    digits: int, negative: bool, deep: bool
) -> None:
    text = b"%b%b" % (b"-" if negative else b"", b"9" * digits)
    data = b'{"a":[{"b":%b}]}' % text if deep else b'{"a":%b}' % text
    try:
        taken = TypeAdapter(FreeJson).validate_json(data)
    except ValidationError:
        assert digits > 4_150, "so many are promised"
        return
    assert decode_json(msgspec.Raw(data)) == taken
