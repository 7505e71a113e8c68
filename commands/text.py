"""Words for people in commands: names, descriptions, reasons. Pure; for the aggregates' files."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

NOT_BLANK: Final = r"\S"
"""What ``Text`` says to readers of its JSON Schema."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank_text", "Text of nothing but blanks says nothing")
    return text


Text = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": NOT_BLANK}),
    AfterValidator(_not_blank),
]
"""1 to 200 characters, not only blanks."""
