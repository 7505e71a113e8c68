"""How the simulated gateway behaves: by the token of a charge, on a ledger.

| token | what a charge does |
| --- | --- |
| `tok_approve` | succeeds |
| `tok_decline`, and every token that is not here | is declined |
| `tok_slow`, `tok_slow_<ms>` | succeeds; the first answer comes after 3,000 or so many milliseconds |
| `tok_drop` | succeeds; the connection closes without an answer, the first time |
| `tok_flaky` | 503 twice, then succeeds |
| `tok_down` | 503 always, nothing is charged; until mended |
| `tok_refund_down` | succeeds; its refunds answer 503 until mended |
"""

import asyncio
import re
from collections import Counter
from typing import Final

from payments.gateway import Charge, Charged, Declined, GatewayUnavailable, Refunded
from payments.ledger import Ledger

SLOW_MS: Final = 3_000
FLAKY_FAILURES: Final = 2
REFUSED: Final = "the card was declined"

_slow: Final = re.compile(r"tok_slow(?:_(\d{1,6}))?").fullmatch


class AnswerLost(GatewayUnavailable):
    """It happened, and nobody is told."""


class SimulatedGateway:
    """The port, on a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._failures: Counter[str] = Counter()

    async def charge(self, charge: Charge) -> Charged | Declined:
        """As the port's."""
        self.ledger.check(charge)
        known = self.ledger.find(charge.key)
        if known is not None:
            return known
        slow = _slow(charge.token)
        if slow is not None:
            charged = self.ledger.charge(charge)
            await asyncio.sleep(int(slow[1] or SLOW_MS) / 1000)
            return charged
        match charge.token:
            case "tok_approve" | "tok_refund_down":
                pass
            case "tok_drop":
                self.ledger.charge(charge)
                raise AnswerLost("the connection closed")
            case "tok_flaky":
                self._fail_at_first(charge.key)
            case "tok_down":
                if not self.ledger.mended:
                    raise GatewayUnavailable("503: down")
            case _:
                return self.ledger.decline(charge, REFUSED)
        return self.ledger.charge(charge)

    async def refund(self, key: str) -> Refunded:
        """As the port's."""
        if not self.ledger.mended and self.ledger.token_of(key) == "tok_refund_down":
            raise GatewayUnavailable("503: refunds are down")
        return self.ledger.refund(key)

    def mend(self) -> None:
        """Everything works from now on."""
        self.ledger.mend()

    def _fail_at_first(self, key: str) -> None:
        if self._failures[key] < FLAKY_FAILURES and not self.ledger.mended:
            self._failures[key] += 1
            raise GatewayUnavailable("503: flaky")
        del self._failures[key]
