"""The simulated gateway as a process of its own: HTTP on loopback, its ledger under ``ORDERFLOW_HOME``.

| request | answer |
| --- | --- |
| `POST /charges`, key in `Idempotency-Key` | 200 charged, 402 declined, 409 under way, 422 reused, 503 |
| `POST /refunds`, key in `Idempotency-Key` | 200 refunded, 409 under way, 503 |
| `GET /charges/{key}` | 200 what was answered, 404 |
| `GET /ledger` | every charge and refund, for reconciliation |
| `POST /mend` | 200; every token works from now on |
| `GET /health` | 200 |

``python -m payments.simulated_gateway PORT`` is the same as `orderflow gateway --port PORT`.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from payments.gateway import Charge, Declined, GatewayUnavailable, KeyReused
from payments.http_gateway import KEY_HEADER
from payments.ledger import Ledger, LedgerInUse
from payments.simulation import AnswerLost, KeyInProgress, SimulatedGateway
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from schemas.decoding import Int64, decoder

logger = logging.getLogger(__name__)

STOP_WITHIN_S: Final = 2.0
LOOPBACK: Final = "127.0.0.1"


class _Terms(msgspec.Struct, frozen=True):
    """Body of a charge."""

    amount: Int64
    currency: str
    token: str


_decode_terms: Final = decoder(_Terms)


def ledger_file(settings: Settings) -> Path:
    """Where the ledger lies."""
    return settings.home / "gateway" / "ledger.sqlite"


def address_file(settings: Settings) -> Path:
    """Holds the URL of the running gateway, for a parent that asked for any free port."""
    return settings.home / "gateway" / "address"


def run_gateway(settings: Settings, port: int, host: str = LOOPBACK) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit code. Port 0: any that is free."""
    begin_role(settings)
    try:
        return asyncio.run(_run(settings, host, port))
    except (LedgerInUse, OSError) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED


async def _run(settings: Settings, host: str, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ledger = Ledger.on_disk(ledger_file(settings))
    runner = web.AppRunner(
        build_app(SimulatedGateway(ledger)), access_log=None, shutdown_timeout=STOP_WITHIN_S
    )
    await runner.setup()
    announced = address_file(settings)
    try:
        await web.TCPSite(runner, host, port).start()
        url = f"http://{host}:{runner.addresses[0][1]}"
        _announce(announced, url)
        await stop.wait()
        announced.unlink(missing_ok=True)
    finally:
        await runner.cleanup()
        ledger.close()
    return EXIT_OK


def _announce(file: Path, url: str) -> None:
    """On standard output for a person or a pipe, in a file for whoever has neither."""
    fresh = file.with_suffix(".new")
    fresh.write_text(url, "utf-8")
    fresh.replace(file)  # whoever sees the file sees all of it
    sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


def build_app(gateway: SimulatedGateway) -> web.Application:
    """The table of requests above."""
    app = web.Application()
    endpoints = _Endpoints(gateway)
    app.add_routes(
        [
            web.post("/charges", endpoints.charge),
            web.post("/refunds", endpoints.refund),
            web.get("/charges/{key}", endpoints.find),
            web.get("/ledger", endpoints.ledger),
            web.post("/mend", endpoints.mend),
            web.get("/health", endpoints.health),
        ]
    )
    return app


class _Endpoints:
    def __init__(self, gateway: SimulatedGateway) -> None:
        self._gateway = gateway

    async def charge(self, request: web.Request) -> web.Response:
        try:
            terms = _decode_terms(await request.read())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _json({"error": str(error)}, 400)
        key = request.headers.get(KEY_HEADER, "")
        if not key or terms.amount <= 0:
            return _json({"error": f"a charge needs {KEY_HEADER} and a positive amount"}, 400)
        try:
            answer = await self._gateway.charge(
                Charge(key, terms.amount, terms.currency, terms.token)
            )
        except KeyReused as error:
            return _json({"error": str(error)}, 422)
        except AnswerLost:
            if request.transport is not None:
                request.transport.abort()
            return _json({}, 500)
        except GatewayUnavailable as error:
            return _json({"error": str(error)}, _status_of(error))
        return _json(answer, 402 if isinstance(answer, Declined) else 200)

    async def refund(self, request: web.Request) -> web.Response:
        key = request.headers.get(KEY_HEADER, "")
        if not key:
            return _json({"error": f"a refund needs {KEY_HEADER}: the charge's"}, 400)
        try:
            return _json(await self._gateway.refund(key), 200)
        except GatewayUnavailable as error:
            return _json({"error": str(error)}, _status_of(error))

    async def find(self, request: web.Request) -> web.Response:
        found = self._gateway.ledger.find(request.match_info["key"])
        return _json({}, 404) if found is None else _json(found, 200)

    async def ledger(self, _: web.Request) -> web.Response:
        return _json(self._gateway.ledger.book(), 200)

    async def mend(self, _: web.Request) -> web.Response:
        self._gateway.mend()
        return _json({}, 200)

    async def health(self, _: web.Request) -> web.Response:
        return _json({}, 200)


def _status_of(error: GatewayUnavailable) -> int:
    return 409 if isinstance(error, KeyInProgress) else 503


def _json(body: object, status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


if __name__ == "__main__":
    sys.exit(run_gateway(Settings(), int(sys.argv[1])))
