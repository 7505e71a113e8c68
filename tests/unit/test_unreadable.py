"""Whatever Redis answers to a query, it is an answer or a named key: nothing else leaves a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from readmodels import questions
from readmodels.steps import drive
from readmodels.unreadable import ReadableRunner, ViewUnreadable, readable
from tests.support.hostile_store import ROWS, TEXTS

VALUES = [text for text in TEXTS if "\udcff" not in text] + ["1", "-1", "o-1/GBP", "null", "0.5"]
NAMES = sorted({name for row in ROWS.values() for name in row} | {"orders", "spent:GBP", "", "x:y"})


class Anything:
    """Answers each command with the shape of its reply, and with any content."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._ranked = False

    def run(self, commands: Sequence[Any]) -> list[Any]:
        return [self._reply(str(command[0]), len(command)) for command in commands]

    def _reply(self, name: str, words: int) -> Any:
        text = st.sampled_from(VALUES) | st.text(max_size=5)
        fields = st.dictionaries(st.sampled_from(NAMES), text, max_size=len(NAMES))
        match name:
            case "HGETALL":
                row = st.sampled_from(list(ROWS.values())) | fields
                found = self._data.draw(st.builds(lambda a, b: {**a, **b}, row, fields))
                return [part for pair in found.items() for part in pair]
            case "HMGET":
                return self._data.draw(
                    st.lists(st.none() | text, min_size=words - 2, max_size=words - 2)
                )
            case "GET" | "HGET":
                return self._data.draw(st.none() | text)
            case "ZREVRANGEBYLEX":
                return self._data.draw(st.lists(text, max_size=3))
            case _ if self._ranked:
                return []  # one bucket of many has something
            case _:
                self._ranked = True
                score = st.floats(allow_nan=False).map(str)
                rows = self._data.draw(st.lists(st.tuples(score, text), max_size=3))
                return [part for score_, member in rows for part in (member, score_)]


QUESTIONS: dict[str, Callable[[], Any]] = {
    "order": lambda: questions.order("p", "o-1"),
    "orders_of": lambda: questions.orders_of("p", "o-1", None, 10),
    "user": lambda: questions.user("p", "o-1"),
    "stock": lambda: questions.stock("p", "o-1"),
    "low_stock": lambda: questions.low_stock("p", 10),
    "top_spent": lambda: questions.top_users("p", "spent", "GBP", 10),
    "top_orders": lambda: questions.top_users("p", "orders", "GBP", 10),
    "saga": lambda: questions.saga("p", "o-1"),
    "sagas": lambda: questions.sagas("p", None, 10),
}


@pytest.mark.parametrize("name", QUESTIONS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_question_has_an_answer_or_names_the_key(name: str, data: st.DataObject) -> None:
    try:
        drive(Anything(data), QUESTIONS[name]())
    except ViewUnreadable as error:
        problem = str(error)
    else:
        problem = "Redis, "
    assert problem.startswith("Redis, ")


class Refusing:
    """Answers everything with the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, commands: Sequence[Any]) -> list[Any]:
        raise self._error


def test_another_type_and_other_bytes_are_no_view() -> None:
    wrong = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    for error in (wrong, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")):
        with pytest.raises(ViewUnreadable, match="Redis, a key of the views"):
            ReadableRunner(Refusing(error)).run([("GET", "x")])


def test_another_refusal_stays_what_it_is() -> None:
    with pytest.raises(ResponseError), readable():
        raise ResponseError("NOPERM no permissions")
