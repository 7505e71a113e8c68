"""No secret is shown, whatever it stands in: answers, tables, JSON, errors, logs."""

from __future__ import annotations

import io
import json
import logging
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orderflow.cli.output import Printer, Styled, print_json, table
from runtime.role import SafeFormatter
from schemas.masking import masked, masked_bytes

keys = st.binary(min_size=24, max_size=64).map(lambda raw: b64encode(raw).decode())
secrets = keys.map(lambda key: f"whsec_{key}")


def nested(leaf: Any) -> st.SearchStrategy[Any]:
    """The leaf somewhere in a document, also within JSON that is a string of JSON."""
    return st.recursive(
        st.just(leaf),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2),
            st.dictionaries(st.text(max_size=5), inner, min_size=1, max_size=2),
            inner.map(json.dumps),
            inner.map(lambda value: f"before {value} after"),
        ),
        max_leaves=3,
    )


@settings(deadline=None, max_examples=50)
@given(st.data(), keys)
def test_no_document_shows_a_secret(data: st.DataObject, key: str) -> None:
    document = data.draw(nested(f"whsec_{key}"))
    assert key not in masked(json.dumps(document))
    assert key.encode() not in masked_bytes(json.dumps(document).encode())
    assert json.dumps(json.loads(masked(json.dumps(document))))


@given(keys, st.sampled_from(["secret", "subject_key"]), st.integers(0, 3))
def test_a_field_that_holds_a_secret_is_masked_whatever_its_value_is(
    key: str, name: str, depth: int
) -> None:
    text = json.dumps({name: key, "secrets": [{"secret": key, "until_ms": None}]})
    for _ in range(depth):
        text = json.dumps({"value": text})
    assert key not in masked(text)


@given(st.binary())
def test_bytes_without_a_secret_stay_as_they_are(data: bytes) -> None:
    if b"whsec_" not in data and b'"' not in data:
        assert masked_bytes(data) == data


@given(secrets)
def test_every_way_out_to_a_person_is_masked(secret: str) -> None:
    key = secret.removeprefix("whsec_")
    stream = io.StringIO()
    printer = Printer(Console(file=stream, width=1_000))
    printer.say(f"it was {secret}")
    printer.say(Styled(secret, "red"))
    printer.show(table("T", ("a", "b"), [(secret, Styled(f"x {secret}", "red"))]))
    printer.json({"secret": secret})
    assert key not in stream.getvalue()
    assert stream.getvalue().count("(secret)") >= 4


def test_json_answers_are_masked_unless_they_are_to_reveal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Answer(msgspec.Struct):
        data: Any

    print_json(Answer({"secret": "whsec_abcdef", "url": "https://a"}))
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"data": {"secret": "(secret)", "url": "https://a"}}
    print_json({"secret": "whsec_abcdef"}, reveal=True)
    assert json.loads(capsys.readouterr().out) == {"secret": "whsec_abcdef"}


def test_logs_are_masked_with_their_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter("%(message)s"))
    log = logging.getLogger("masked")
    log.addHandler(handler)
    try:
        raise ValueError("no such secret: whsec_abcdefgh")
    except ValueError:
        log.exception("cannot sign with %s", "whsec_ijklmnop")
    assert "abcdefgh" not in stream.getvalue()
    assert "ijklmnop" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()
