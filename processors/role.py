"""The processor as a role of a deployment: signals in, exit code out."""

import gc
import logging
import signal
from types import FrameType
from typing import Final

from confluent_kafka import KafkaException

from processors.command_processor import CommandProcessor
from processors.partitions import OffsetsLost
from processors.restore import RestoreStalled
from processors.slot import NoFreeSlot
from runtime.kafka import KafkaNotConfigured
from runtime.settings import Settings
from runtime.topic_admin import TopicsUnfit

logger = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
"""Something a person has to look at; what, stands on standard error."""


def run_processor(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT and returns the exit code. Call it from the main thread."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    processor = CommandProcessor(settings)
    _collect_rarely()

    def stop(_: int, __: FrameType | None) -> None:
        processor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        processor.run()
    except (
        KafkaException,
        KafkaNotConfigured,
        NoFreeSlot,
        OffsetsLost,
        RestoreStalled,
        TopicsUnfit,
    ) as refusal:
        logger.error("%s", refusal)
        return EXIT_REFUSED
    return EXIT_OK


def _collect_rarely() -> None:
    """Nothing that a decision makes is in a cycle, so all of it goes with its last reference. To look
    for cycles as often as Python does by default costs a tenth of the time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
