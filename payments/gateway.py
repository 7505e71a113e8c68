"""The port to a payment gateway: what the outbox asks, and what it may rely on.

`tests/integration/test_gateway.py` is this contract as sentences; an adapter of a real provider is done
when it passes. The invariant: one key is one charge, whatever is repeated, lost or killed.
"""

from typing import ClassVar, Protocol

import msgspec

from schemas.decoding import Int64


class Charge(msgspec.Struct, frozen=True):
    """Take ``amount`` minor units from who is behind ``token``. ``key``: the same key is the same
    charge.
    """

    key: str
    amount: Int64
    currency: str
    token: str


class Charged(msgspec.Struct, frozen=True):
    """The money was taken: so much of it, at most what was asked for, under the gateway's own number."""

    amount: Int64
    reference: str


class Declined(msgspec.Struct, frozen=True):
    """The money was not taken, and under this key never will be."""

    reason: str


class Refunded(msgspec.Struct, frozen=True):
    """All that was taken under the key went back. ``reference`` is the charge's.

    ``amount`` 0 and no reference: nothing had been taken, and now nothing will be under this key.
    """

    amount: Int64
    reference: str | None = None


class GatewayUnavailable(Exception):
    """No definite answer: it may have happened or not. Ask again with the same key. So it is, too, while
    another call with the key is under way.
    """


class KeyReused(Exception):
    """The key stands for another charge. Nothing was done; a person has to look at it."""

    code: ClassVar = "key_reused"


class RequestRefused(Exception):
    """The gateway takes no such request, or it cannot be sent. Nothing was done, and asking again would not
    help: a person has to look at it.
    """

    code: ClassVar = "gateway_refused"


class PaymentGateway(Protocol):
    """Both calls can be repeated for ever: the same key is the same charge, with the same answer."""

    async def charge(self, charge: Charge) -> Charged | Declined:
        """Takes the money, once. The first definite answer under a key is its answer for ever.

        Raises GatewayUnavailable, and KeyReused when amount, currency or token are not those of the
        first charge under the key.
        """

    async def refund(self, key: str) -> Refunded:
        """Gives back all that was charged under the key, once; repeated, it answers the same.

        If nothing was charged, the key is barred: a later charge, also one that is on its way, is
        Declined. Raises GatewayUnavailable.
        """
