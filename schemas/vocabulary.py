"""Words of the wire format that a newer release may add to. Pure; everyone may import this.

A reader that refuses a word it does not know fails when processors are upgraded before it. So reading such a
word gives a member without a name here, whose value is the word. Writers use the named members only.
"""

from enum import StrEnum
from typing import Self


class OpenVocabulary(StrEnum):
    """Base of an enum that takes any word. Compare with ``is`` or ``==``; every known word has one member."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        word = str.__new__(cls, value)
        word._name_ = word._value_ = value
        return word

    @property
    def known(self) -> bool:
        """True if this release knows the word."""
        return self.value in type(self)._value2member_map_
