"""A log line is one line, whatever it quotes."""

import io
import logging

from hypothesis import given
from hypothesis import strategies as st

from runtime.printable import is_visible
from runtime.role import SafeFormatter

FORGED = "x\n2026-01-01 00:00:00 INFO processors: all is well\x1b[2J\u202e"


def logged(*args: object, error: Exception | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("test")
    logger.propagate = False
    logger.addHandler(handler)
    logger.error("refused: %s", *args, exc_info=error)
    logger.removeHandler(handler)
    return stream.getvalue()


@given(st.text(st.characters() | st.sampled_from("\n\r\x1b\x9b\u2028\u202e")))
def test_a_record_is_one_line(text: str) -> None:
    said = logged(text)
    assert said.count("\n") == 1
    assert all(is_visible(char) for char in said[:-1])


def test_a_line_break_in_what_was_sent_forges_no_record() -> None:
    assert logged("a\nb") == "ERROR test: refused: a\\nb\n"


def test_an_exception_that_quotes_it_forges_none_either() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        said = logged("it", error=error)
    first, *trace = said.splitlines()
    assert first == "ERROR test: refused: it"
    assert trace
    assert all(line.startswith("  ") for line in trace)
    assert all(is_visible(char) or char == "\n" for char in said)
    assert "ValueError: x" in said
