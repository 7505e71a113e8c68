"""Money: whole minor units (pence, cents) and an ISO 4217 currency code. No floats anywhere.

Amounts stay within 2**53 - 1, the largest integer that every JSON reader and Redis' Lua keep exact.
"""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from schemas.currencies import MINOR_DIGITS

MAX_AMOUNT: Final = 2**53 - 1
MAX_UNIT_PRICE: Final = 10**9
MAX_QUANTITY: Final = 10**6
"""One line's price times its quantity is at most 1e15; an order of several is checked against MAX_AMOUNT."""

CURRENCY_PATTERN: Final = r"^[A-Z]{3}$"
Currency = Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)]
"""Three capital letters, ISO 4217."""

Amount = Annotated[int, Field(gt=0, le=MAX_AMOUNT)]
"""A positive amount in minor units."""

UnitPrice = Annotated[int, Field(ge=0, le=MAX_UNIT_PRICE)]
"""Price of one piece in minor units; zero is a gift."""

Quantity = Annotated[int, Field(gt=0, le=MAX_QUANTITY)]
"""A positive number of pieces."""


def minor_digits(currency: str) -> int | None:
    """Return the decimals of an amount in this currency; None for a code that ISO 4217 does not list."""
    return MINOR_DIGITS.get(currency)
