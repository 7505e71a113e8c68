"""Records that could not be handled: which there are, and what can be done about them.

Public: `Desk`, which reads the topics of dead letters, of the audit and of what is parked, and carries out
what an operator orders. Whoever writes a dead letter with ``schemas.letters.letter_marks`` is listed, by the
place of the record and the stage that could not handle it.
"""

from orderflow.dead_letters.desk import Desk, LetterNotFound, LetterRefused, Order, Settlement
from orderflow.dead_letters.letters import Letter

__all__ = ["Desk", "Letter", "LetterNotFound", "LetterRefused", "Order", "Settlement"]
