"""The answers of a step as a string, one character a command; see schemas/saga.py for what they mean.

Pure arithmetic on these characters, so that nothing else has to know them.
"""

from typing import Final

from schemas.saga import ACCEPTED, NOT_ASKED, NOTHING_TO_DO, REFUSED

FIRST: Final = "A"
LAST: Final = "Z"


def asked(count: int) -> str:
    """So many commands, asked for the first time."""
    return FIRST * count


def is_waiting(mark: str) -> bool:
    """Asked, and not answered."""
    return FIRST <= mark <= LAST


def is_put_off(mark: str) -> bool:
    """Refused for now, to be asked again."""
    return FIRST <= mark.upper() <= LAST and mark.islower()


def put_off(mark: str) -> str:
    """The mark of a command that is to be asked again. Only for one that waits."""
    return mark.lower()


def can_be_put_off(mark: str) -> bool:
    """Whether there is a further command id to ask under."""
    return mark != LAST


def ask_again(marks: str) -> str:
    """What was put off is asked under the next command id; what is not answered, under the same."""
    return "".join(chr(ord(m.upper()) + 1) if is_put_off(m) else m for m in marks)


def ask_anew(marks: str) -> str:
    """As ``ask_again``, and what was refused for good is asked, too: an operator wants it so."""
    return "".join(FIRST if m == REFUSED else m for m in ask_again(marks))


def with_mark(marks: str, number: int, mark: str) -> str:
    """The marks with that of one command changed."""
    return marks[:number] + mark + marks[number + 1 :]


def is_open(marks: str) -> bool:
    """Whether any answer is still to come."""
    return any(is_waiting(mark) or is_put_off(mark) for mark in marks)


def is_done(marks: str) -> bool:
    """Whether every command that was asked is done."""
    return all(mark in (ACCEPTED, NOTHING_TO_DO, NOT_ASKED) for mark in marks)


def to_undo(marks: str) -> str:
    """Which commands may have had an effect: those accepted, and those of which nobody knows yet."""
    return "".join(FIRST if m == ACCEPTED or is_waiting(m) else NOT_ASKED for m in marks)
