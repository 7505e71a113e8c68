"""HTTP: one POST, bounded in every direction, to nothing but allowed addresses.

The invariant: no socket is connected to an address that `webhooks.addresses` refuses. Names are looked up
anew for each connection and the addresses that come back are those connected to, so a name that stands
for another address a moment later (DNS rebinding) gains nothing; and every socket, also that of an
address in the URL itself, is checked once more where it is made. Redirects are not followed, proxies of
the environment and cookies are not used.
"""

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from schemas.webhook import WebhookState
from webhooks.addresses import AddressRefused, Network, check
from webhooks.message import Message, headers_of
from webhooks.policy import Answer

MOST_DRAINED: Final = 64 * 1024
DRAIN_S: Final = 1.0
MOST_TEXT: Final = 200
"""Of what an error says, for the log."""

AddrInfo = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]


class CheckedResolver(AbstractResolver):
    """Looks names up with another resolver; a name that stands for one refused address is refused."""

    def __init__(self, resolver: AbstractResolver, allowed: Sequence[Network]) -> None:
        self._resolver = resolver
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As aiohttp's. Raises AddressRefused."""
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            check(each["host"], self._allowed)
        return found

    async def close(self) -> None:
        """As aiohttp's."""
        await self._resolver.close()


class Poster:
    """Use as an async context manager. Any number of calls at once; who calls bounds them."""

    def __init__(
        self,
        timeout_s: float,
        allowed: Sequence[Network],
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allowed = allowed
        self._given = resolver
        # Of the whole call, looking up and connecting included: an endpoint that trickles is one that hangs.
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        # Not the system's, which needs a thread for as long as a name's servers are silent: a few such names
        # would take all threads, and no other name could be looked up.
        self._resolver = CheckedResolver(self._given or aiohttp.AsyncResolver(), self._allowed)
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=self._resolver,
            use_dns_cache=False,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What the endpoint answered; never raises for what an endpoint or a network does."""
        begun = time.monotonic()

        def taken() -> int:
            return round((time.monotonic() - begun) * 1000)

        try:
            # As it stands: encoded anew, it could be another URL than the one that was checked.
            async with self._session.post(
                URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                # The status is the answer. The body means nothing here.
                retry_after = response.headers.get("retry-after")
                answer = Answer(taken(), response.status, retry_after=retry_after)
                await _drain(response.content)
                return answer
        except TimeoutError:
            return Answer(taken(), error=f"no answer within {self._timeout.total:g} s")
        except aiohttp.ClientResponseError as fault:
            return Answer(taken(), error=_short(f"no HTTP answer: {fault.message}"))
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError, ValueError) as fault:
            cause = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
            refused = isinstance(cause, AddressRefused)
            text = _short(f"{type(cause).__name__}: {cause}")
            return Answer(taken(), error=text, forbidden=refused)

    def _socket(self, info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        check(str(address[0]), self._allowed)
        return socket.socket(family, kind, protocol)


async def post(poster: Poster, state: WebhookState, message: Message) -> Answer:
    """One attempt, with the address and the secrets of the moment."""
    headers = headers_of(message, state.secrets, datetime.now(UTC))
    return await poster.post(state.url, headers, message.body)


async def _drain(content: aiohttp.StreamReader) -> None:
    """Reads a short body to its end, so that the connection can be used again; of any other, not more."""
    with suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(DRAIN_S):
            left = MOST_DRAINED
            while left > 0 and (chunk := await content.read(left)):
                left -= len(chunk)


def _short(text: str) -> str:
    """An error on one line, for the log: not more than it needs of what others wrote."""
    return " ".join(text.split())[:MOST_TEXT]
