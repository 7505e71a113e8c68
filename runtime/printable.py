"""Make text safe for a terminal and for a log line. Pure; knows no stream.

Stored text comes from anyone who may write a record, and a terminal obeys some of its characters: escape
sequences, C1 controls, changes of the writing direction. Others show nothing, so that two ids look alike. All
of these become visible escapes, as Python writes them; everything else stays and can be copied.
"""

import re
import unicodedata
from typing import Final

_HARMLESS: Final = re.compile(r"[ -~]*").fullmatch
_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
).fullmatch
"""Default_Ignorable_Code_Point of Unicode, as far as `str.isprintable` allows them: they show nothing."""


def is_visible(char: str) -> bool:
    """Return True for a character that shows something and steers nothing; spaces count as visible."""
    if char.isprintable():
        return _IGNORABLE(char) is None
    return unicodedata.category(char) == "Zs"


def printable(text: str) -> str:
    r"""Return the text in one line; an invisible character becomes ``\x1b``, ``\u202e`` or the like."""
    if _HARMLESS(text):
        return text
    return "".join(char if is_visible(char) else escaped(char) for char in text)


def from_system(text: str) -> str:
    """Return text of an argument, a variable or a path as UTF-8, if its bytes are.

    In a locale without UTF-8 Python keeps each of these bytes as a surrogate.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return text


def escaped(char: str) -> str:
    """Return the escape of one character as Python writes it."""
    return char.encode("unicode_escape").decode("ascii")
