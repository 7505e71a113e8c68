"""The port over HTTP, as the simulated gateway speaks it: JSON, and the key in ``Idempotency-Key``.

Every answer is one of the port's: what cannot be understood, or did not come in time, is not known; a request
that the gateway takes for none is refused.
"""

from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec

from payments.gateway import (
    Charge,
    Charged,
    Declined,
    GatewayUnavailable,
    KeyReused,
    Refunded,
    RequestRefused,
)
from schemas.decoding import decoder

KEY_HEADER: Final = "Idempotency-Key"
MAX_ANSWER_BYTES: Final = 64 * 1024

REFUSALS: Final = frozenset({400, 413, 414, 415, 431})
"""Statuses that are about the request itself. Others from 400 on may be about the way to the gateway, e.g. a
key or an address that is being changed, and are asked again.
"""

Answer = TypeVar("Answer", Charged, Declined, Refunded)


class HttpGateway:
    """Use as an async context manager. Any number of calls at once; who calls bounds them."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        self._url = url.rstrip("/")
        # Of the whole call, connecting and reading included: a gateway that trickles is one that hangs.
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def charge(self, charge: Charge) -> Charged | Declined:
        """As the port's."""
        body = {"amount": charge.amount, "currency": charge.currency, "token": charge.token}
        status, answer = await self._post("/charges", charge.key, body)
        if status == 402:
            return _read(answer, Declined)
        charged = _read(answer, Charged)
        if not 0 < charged.amount <= charge.amount:
            raise GatewayUnavailable(f"{charged.amount} charged where {charge.amount} was asked")
        return charged

    async def refund(self, key: str) -> Refunded:
        """As the port's."""
        status, answer = await self._post("/refunds", key, {})
        if status == 402:
            raise GatewayUnavailable("HTTP 402 to a refund")
        refunded = _read(answer, Refunded)
        if refunded.amount < 0 or (refunded.amount == 0) != (refunded.reference is None):
            raise GatewayUnavailable(f"a refund that makes no sense: {refunded}")
        return refunded

    async def _post(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of a definite answer: 200, or 402 for a decline."""
        # Asked before anything is sent: of an error after that, nobody knows what has happened by then.
        if not (key.isascii() and key.isprintable()):
            raise RequestRefused("its key cannot be sent as a header")
        try:
            async with self._session.post(
                self._url + path, json=body, headers={KEY_HEADER: key}, allow_redirects=False
            ) as response:
                answer = await response.content.read(MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(answer) < MAX_ANSWER_BYTES:
                    answer += await response.content.read(MAX_ANSWER_BYTES - len(answer))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as fault:
            raise GatewayUnavailable(f"{type(fault).__name__}: {fault}") from fault
        match response.status:
            case 200 | 402:
                return response.status, answer
            case 409:
                raise GatewayUnavailable("HTTP 409: a call with this key is under way")
            case 422:
                raise KeyReused(answer.decode("utf-8", "replace")[:200])
            case status if status in REFUSALS:
                raise RequestRefused(f"HTTP {status}: {answer.decode('utf-8', 'replace')[:200]}")
            case status:
                raise GatewayUnavailable(f"HTTP {status}")


def _read(answer: bytes, kind: type[Answer]) -> Answer:
    try:
        return decoder(kind)(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GatewayUnavailable(f"an answer that is none: {error}") from error
