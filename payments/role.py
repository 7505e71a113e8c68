"""The outbox of payments as a role of a deployment: signals in, exit code out."""

import asyncio
import logging
import signal

from confluent_kafka import KafkaException

from payments.http_gateway import HttpGateway
from payments.outbox import ROLE, PaymentsOutbox
from runtime.kafka import KafkaNotConfigured
from runtime.role import EXIT_OK, EXIT_REFUSED, begin_role
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit
from runtime.watchdog import Watchdog

logger = logging.getLogger(__name__)


class GatewayNotConfigured(RuntimeError):
    """No payment gateway: set ORDERFLOW_GATEWAY_URL; `orderflow gateway` is a simulated one."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def run_payments(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT and returns the exit code. Call it from the main thread."""
    begin_role(settings)
    try:
        with Watchdog(ROLE):
            asyncio.run(_run(settings))
    except (GatewayNotConfigured, KafkaException, KafkaNotConfigured, TopicsUnfit) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED
    return EXIT_OK


async def _run(settings: Settings) -> None:
    if settings.gateway_url is None:
        raise GatewayNotConfigured
    async with HttpGateway(settings.gateway_url, settings.gateway_timeout_ms) as gateway:
        outbox = PaymentsOutbox(settings, gateway)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, outbox.stop)
        await outbox.run()
