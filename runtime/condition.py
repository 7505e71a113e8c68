"""A condition of something outside: broken or whole, and told when that changes. Everybody may import it."""

import logging

logger = logging.getLogger(__name__)


class Condition:
    """Says once that something is broken and once that it is whole again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._fault = ""

    def broken(self, fault: BaseException) -> None:
        """A fault that is new is a warning, a repeated one is not worth a line."""
        text = f"{type(fault).__name__}: {fault}"
        level = logging.DEBUG if text == self._fault else logging.WARNING
        logger.log(level, "%s: %s; trying again until it works", self._what, text)
        self._fault = text

    def whole(self) -> None:
        """Tell that it works again, if it did not."""
        if self._fault:
            logger.info("%s: works again", self._what)
            self._fault = ""
