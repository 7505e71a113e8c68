"""How the simulated gateway behaves: by the token of a charge, on a ledger.

| token | what a charge does |
| --- | --- |
| `tok_approve` | succeeds |
| `tok_decline`, and every token that is not here | is declined |
| `tok_slow`, `tok_slow_<ms>` | succeeds; the first answer comes after 3,000 or so many milliseconds |
| `tok_busy`, `tok_busy_<ms>` | the same, and until then every other call with the key gets 409 |
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

_slow: Final = re.compile(r"tok_(?:slow|busy)(?:_([0-9]{1,6}))?").fullmatch
_BUSY: Final = "tok_busy"


class AnswerLost(GatewayUnavailable):
    """It happened, and nobody is told."""


class KeyInProgress(GatewayUnavailable):
    """Another call with this key is under way."""


class SimulatedGateway:
    """The port, on a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._failures: Counter[str] = Counter()
        self._busy: set[str] = set()

    async def charge(self, charge: Charge) -> Charged | Declined:
        """As the port's."""
        self._refuse_while_busy(charge.key)
        self.ledger.check(charge)
        known = self.ledger.find(charge.key)
        if known is not None:
            return known
        slow = _slow(charge.token)
        if slow is not None:
            return await self._charge_slowly(charge, int(slow[1] or SLOW_MS))
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
        self._refuse_while_busy(key)
        if not self.ledger.mended and self.ledger.token_of(key) == "tok_refund_down":
            raise GatewayUnavailable("503: refunds are down")
        return self.ledger.refund(key)

    def mend(self) -> None:
        """Everything works from now on."""
        self.ledger.mend()

    async def _charge_slowly(self, charge: Charge, ms: int) -> Charged:
        charged = self.ledger.charge(charge)
        if charge.token.startswith(_BUSY):
            self._busy.add(charge.key)
        try:
            await asyncio.sleep(ms / 1000)
        finally:
            self._busy.discard(charge.key)
        return charged

    def _refuse_while_busy(self, key: str) -> None:
        if key in self._busy:
            raise KeyInProgress(f"409: a call with key {key} is under way")

    def _fail_at_first(self, key: str) -> None:
        if self._failures[key] < FLAKY_FAILURES and not self.ledger.mended:
            self._failures[key] += 1
            raise GatewayUnavailable("503: flaky")
        del self._failures[key]
