"""Masks secrets in everything that is shown to people: answers, errors and logs. Pure; all may import it.

Topics and states hold secrets as they are: who signs needs them. Each way out to a person or a log passes
through ``masked``, so a new command or a new log line cannot forget it.
"""

import re
from typing import Final

MASK: Final = "(secret)"

_QUOTE: Final = r'\\*"'
"""A quote of JSON, or of JSON within a string of JSON, however deep."""

_NAMED: Final = re.compile(rf'({_QUOTE}(?:secret|subject_key){_QUOTE}\s*:\s*{_QUOTE})([^"\\]+)')
"""The value of a field that holds a secret, whatever it looks like."""

_SIGNING: Final = re.compile(r"(whsec_)(?:[A-Za-z0-9+/=_-]|\\/)+")
"""A signing secret of a webhook, wherever it stands; also one that was cut off."""


def masked(text: str) -> str:
    """Return the text with each secret replaced by a fixed word; anything else stays as it is."""
    return _SIGNING.sub(rf"\g<1>{MASK}", _NAMED.sub(rf"\g<1>{MASK}", text))


def masked_bytes(data: bytes) -> bytes:
    """Return bytes of any kind with each secret replaced, as ``masked`` does."""
    return masked(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
